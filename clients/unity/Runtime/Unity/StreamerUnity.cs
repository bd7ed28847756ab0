using System;
using UnityEngine;

namespace Streamer.Unity
{
    /// <summary>Clients whose events come from Unity's main thread.</summary>
    public static class StreamerUnity
    {
        /// <summary>
        /// Connect, and stay connected until the client is disposed or the game ends, across
        /// scenes. Returns at once; events come in later frames.
        /// </summary>
        /// <param name="url">The server, such as https://push.game.example.</param>
        /// <param name="tokenSource">Returns a player token of your backend.</param>
        public static StreamerClient Connect(string url, TokenSource tokenSource)
        {
            return Connect(new StreamerOptions { Url = url, TokenSource = tokenSource });
        }

        /// <summary>
        /// Connect with settings. Those that are not set get the parts for Unity: sockets,
        /// UnityWebRequest, and PlayerPrefs for the cursor.
        /// </summary>
        /// <exception cref="ArgumentException">The URL is not one, or there is no token.</exception>
        public static StreamerClient Connect(StreamerOptions options)
        {
            StreamerClient client = Create(options);
            var host = new GameObject("Streamer");
            UnityEngine.Object.DontDestroyOnLoad(host);
            host.AddComponent<StreamerBehaviour>().Run(client);
            return client;
        }

        /// <summary>
        /// Call a handler with the data of a notification as a class of yours, read by
        /// JsonUtility: mark it [Serializable] and give it public fields. Without data it gets
        /// an object with its defaults.
        /// </summary>
        public static IDisposable On<T>(
            this StreamerClient client, string type, Action<Notification, T> handle)
        {
            return client.On(type, ReadData<T>, handle);
        }

        private static T ReadData<T>(JsonValue data)
        {
            return JsonUtility.FromJson<T>(data.Kind == JsonKind.Object ? data.ToString() : "{}");
        }

        internal static StreamerClient Create(StreamerOptions options)
        {
            if (options.Http == null) options.Http = new UnityHttp();
            if (options.CursorStore == null) options.CursorStore = new PlayerPrefsCursorStore();
            if (options.Sockets == null)
            {
#if UNITY_WEBGL && !UNITY_EDITOR
                options.Sockets = new WebGLSocketFactory();
#else
                options.Sockets = new Net.TcpSocketFactory();
#endif
            }
            return new StreamerClient(options);
        }
    }
}
