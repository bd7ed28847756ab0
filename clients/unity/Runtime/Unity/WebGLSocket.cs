#if UNITY_WEBGL && !UNITY_EDITOR
using System.Runtime.InteropServices;

namespace Streamer.Unity
{
    /// <summary>
    /// WebSockets of the browser, by Plugins/WebGL/StreamerSocket.jslib. Polled as all others:
    /// no callbacks from JavaScript, no SendMessage, no threads.
    /// </summary>
    public sealed class WebGLSocketFactory : ISocketFactory
    {
        public ISocket Open(string url) { return new WebGLSocket(url); }
    }

    internal sealed class WebGLSocket : ISocket
    {
        private const int Opened = 1;
        private const int Text = 2;
        private const int Closed = 3;

        private readonly int _id;
        private bool _isGone;

        [DllImport("__Internal")]
        private static extern int StreamerSocketOpen(string url);

        [DllImport("__Internal")]
        private static extern int StreamerSocketPoll(int id);

        [DllImport("__Internal")]
        private static extern string StreamerSocketText(int id);

        [DllImport("__Internal")]
        private static extern int StreamerSocketCode(int id);

        [DllImport("__Internal")]
        private static extern void StreamerSocketSend(int id, string text);

        [DllImport("__Internal")]
        private static extern void StreamerSocketClose(int id);

        internal WebGLSocket(string url) { _id = StreamerSocketOpen(url); }

        public bool TryTake(out SocketEvent taken)
        {
            taken = new SocketEvent();
            if (_isGone) return false;
            switch (StreamerSocketPoll(_id))
            {
                case Opened:
                    taken = new SocketEvent(SocketEventKind.Opened);
                    return true;
                case Text:
                    taken = new SocketEvent(SocketEventKind.Text, StreamerSocketText(_id));
                    return true;
                case Closed:
                    taken = new SocketEvent(
                        SocketEventKind.Closed, StreamerSocketText(_id), StreamerSocketCode(_id));
                    Close();
                    return true;
                default:
                    return false;
            }
        }

        public void Send(string text)
        {
            if (!_isGone) StreamerSocketSend(_id, text);
        }

        public void Close()
        {
            if (_isGone) return;
            _isGone = true;
            StreamerSocketClose(_id);
        }

        // A browser has no other way. It waits for the answer of the peer by itself.
        public void Abort() { Close(); }
    }
}
#endif
