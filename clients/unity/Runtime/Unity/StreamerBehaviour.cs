using System;
using UnityEngine;
using UnityEngine.Scripting;

namespace Streamer.Unity
{
    /// <summary>
    /// Runs a client in the frames of the game, and tells it when the app pauses, returns and
    /// loses its network. <see cref="StreamerUnity.Connect(StreamerOptions)"/> adds one to an
    /// object of its own.
    /// </summary>
    [Preserve]
    [DisallowMultipleComponent]
    [AddComponentMenu("")]
    public sealed class StreamerBehaviour : MonoBehaviour
    {
        private const float NetworkCheckS = 1;

        private float _networkCheckAtS;

        /// <summary>The client; null before <see cref="Run"/>.</summary>
        public StreamerClient Client { get; private set; }

        /// <summary>Start a client, and run it until this component is destroyed.</summary>
        public void Run(StreamerClient client)
        {
            if (Client != null) throw new InvalidOperationException("this component runs a client already");
            Client = client;
            client.Failed += LogFailure;
            client.Start();
        }

        private void Update()
        {
            if (Client == null) return;
            // Asking the platform in each frame costs some of them a call into Java.
            if (Time.realtimeSinceStartup >= _networkCheckAtS)
            {
                _networkCheckAtS = Time.realtimeSinceStartup + NetworkCheckS;
                Client.SetNetwork(Application.internetReachability != NetworkReachability.NotReachable);
            }
            Client.Tick();
        }

        private void OnApplicationPause(bool isPaused)
        {
            if (Client == null) return;
            // The system may end a paused app without another word.
            if (isPaused) Client.Suspend();
            else Client.Wake();
        }

        private void OnApplicationFocus(bool hasFocus)
        {
            if (Client != null && hasFocus) Client.Wake();
        }

        private void OnDestroy()
        {
            if (Client != null) Client.Dispose();
        }

        private static void LogFailure(Exception error)
        {
            Debug.LogException(error);
        }
    }
}
