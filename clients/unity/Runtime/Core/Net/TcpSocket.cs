#if !UNITY_WEBGL || UNITY_EDITOR
using System;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Text;
using System.Threading;

namespace Streamer.Net
{
    /// <summary>
    /// WebSockets on TCP and TLS, for all platforms that have sockets and threads.
    /// ClientWebSocket of .NET would hide the status and the Retry-After of a refused
    /// handshake, which decide when to try again.
    /// </summary>
    public sealed class TcpSocketFactory : ISocketFactory
    {
        private readonly RemoteCertificateValidationCallback _validate;

        /// <param name="validate">Judges certificates; null trusts what the system trusts.</param>
        public TcpSocketFactory(RemoteCertificateValidationCallback validate = null)
        {
            _validate = validate;
        }

        public ISocket Open(string url) { return new TcpSocket(new Uri(url), _validate); }
    }

    /// <summary>
    /// One connection: a thread that connects and reads, and one that writes. The first one
    /// stops reading while <see cref="EventsMax"/> messages wait to be taken.
    /// </summary>
    internal sealed class TcpSocket : ISocket
    {
        internal const int EventsMax = 64;
        /// <summary>A peer that is gone must not keep a closed connection.</summary>
        private const int CloseTimeoutMs = 1000;
        private const int AddressTimeoutMs = 3000;
        private const int SendTimeoutMs = 10000;
        private const int OutgoingMax = 1000;

        private readonly Uri _url;
        private readonly RemoteCertificateValidationCallback _validate;
        private readonly RandomNumberGenerator _random = RandomNumberGenerator.Create();
        private readonly Queue<SocketEvent> _events = new Queue<SocketEvent>();
        private readonly Queue<KeyValuePair<int, byte[]>> _outgoing = new Queue<KeyValuePair<int, byte[]>>();
        private readonly object _lock = new object();
        private Socket _tcp;
        private WebSocketFrames _frames;
        private int _closeCode;
        private string _closeReason;
        private bool _isGone;
        private bool _isClosing;
        private bool _isEnded;
        private bool _isWriterGone;

        internal TcpSocket(Uri url, RemoteCertificateValidationCallback validate)
        {
            _url = url;
            _validate = validate;
            StartThread(Run, "streamer-read");
        }

        public bool TryTake(out SocketEvent taken)
        {
            lock (_lock)
            {
                if (_events.Count == 0)
                {
                    taken = new SocketEvent();
                    return false;
                }
                taken = _events.Dequeue();
                Monitor.PulseAll(_lock);
                return true;
            }
        }

        public void Send(string text) { Enqueue(WebSocketFrames.Text, Encoding.UTF8.GetBytes(text)); }

        public void Close()
        {
            lock (_lock)
            {
                if (_isGone) return;
                _isClosing = true;
                if (_frames == null)
                {
                    Abort();
                    return;
                }
                Enqueue(WebSocketFrames.Close, new byte[] { 1000 >> 8, 1000 & 0xff });
                // The reader must not wait for a consumer that has left. It reads on to the
                // answer, for a second.
                _isGone = true;
                Monitor.PulseAll(_lock);
            }
        }

        public void Abort()
        {
            lock (_lock)
            {
                _isGone = true;
                Monitor.PulseAll(_lock);
            }
            CloseTcp();
        }

        /// <summary>Ends what the threads are waiting for.</summary>
        private void CloseTcp()
        {
            Socket tcp;
            lock (_lock) tcp = _tcp;
            if (tcp != null) tcp.Close();
        }

        private void Enqueue(int code, byte[] payload)
        {
            lock (_lock)
            {
                // A peer that does not read is found dead by its silence.
                if (_isGone || _outgoing.Count >= OutgoingMax) return;
                _outgoing.Enqueue(new KeyValuePair<int, byte[]>(code, payload));
                Monitor.PulseAll(_lock);
            }
        }

        private void Run()
        {
            try
            {
                Connect();
                Put(new SocketEvent(SocketEventKind.Opened));
                StartThread(WriteAll, "streamer-write");
                ReadAll();
                PutEnd(new SocketEvent(SocketEventKind.Closed, _closeReason ?? "", _closeCode));
            }
            catch (RefusedException error)
            {
                PutEnd(new SocketEvent(
                    SocketEventKind.Closed, error.Body, 0, error.Status, error.RetryAfter));
            }
            catch (Exception error)
            {
                // Whatever it is, the connection is over, and nobody else would say so.
                string reason = _closeReason ?? error.Message;
                PutEnd(new SocketEvent(SocketEventKind.Closed, reason, _closeCode));
            }
        }

        private void Connect()
        {
            bool isSecure = _url.Scheme == "wss";
            int port = _url.IsDefaultPort && _url.Port <= 0 ? (isSecure ? 443 : 80) : _url.Port;
            Stream stream = new NetworkStream(ConnectTcp(port), true);
            if (isSecure)
            {
                var tls = new SslStream(stream, false, _validate);
                tls.AuthenticateAsClient(_url.DnsSafeHost, null, SslProtocols.Tls12, false);
                stream = tls;
            }
            var frames = new WebSocketFrames(stream);
            frames.Handshake(_url, _random);
            lock (_lock) _frames = frames;
        }

        private Socket ConnectTcp(int port)
        {
            Exception failure = null;
            foreach (IPAddress address in Dns.GetHostAddresses(_url.DnsSafeHost))
            {
                Socket tcp;
                lock (_lock)
                {
                    if (_isGone) break;
                    _tcp = tcp = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
                    _tcp.NoDelay = true;
                    // Ends the writer of a peer that does not read.
                    _tcp.SendTimeout = SendTimeoutMs;
                }
                try
                {
                    IAsyncResult connecting = tcp.BeginConnect(address, port, null, null);
                    // A name may have an address of a family that leads nowhere here.
                    if (connecting.AsyncWaitHandle.WaitOne(AddressTimeoutMs))
                    {
                        tcp.EndConnect(connecting);
                        return tcp;
                    }
                    failure = new TimeoutException("no connection to " + address + " in time");
                }
                catch (SocketException error)
                {
                    failure = error;
                }
                tcp.Close();
            }
            throw failure ?? new IOException("the connection was dropped");
        }

        private void ReadAll()
        {
            while (true)
            {
                byte[] payload;
                int code = _frames.Read(out payload, OnControl);
                if (code == WebSocketFrames.Text)
                    Put(new SocketEvent(SocketEventKind.Text, WebSocketFrames.Decode(payload)));
                else if (code == WebSocketFrames.Binary)
                    // Unreadable for the protocol, as "" is. A message of this kind may be a
                    // notification of a server that is not understood.
                    Put(new SocketEvent(SocketEventKind.Text, ""));
                else OnControl(code, payload);
                if (code == WebSocketFrames.Close) return;
            }
        }

        private void OnControl(int code, byte[] payload)
        {
            if (code == WebSocketFrames.Ping) Enqueue(WebSocketFrames.Pong, payload);
            if (code != WebSocketFrames.Close) return;
            if (payload.Length >= 2)
            {
                _closeCode = payload[0] << 8 | payload[1];
                _closeReason = WebSocketFrames.Decode(payload, 2);
            }
            Enqueue(WebSocketFrames.Close, payload.Length >= 2 ? new[] { payload[0], payload[1] } : payload);
        }

        private void WriteAll()
        {
            try
            {
                while (true)
                {
                    KeyValuePair<int, byte[]> next;
                    lock (_lock)
                    {
                        while (_outgoing.Count == 0)
                        {
                            if (_isGone) return;
                            Monitor.Wait(_lock);
                        }
                        next = _outgoing.Dequeue();
                    }
                    _frames.Write(next.Key, next.Value, _random);
                    if (next.Key != WebSocketFrames.Close) continue;
                    lock (_lock)
                    {
                        if (_isClosing && !_isEnded) Monitor.Wait(_lock, CloseTimeoutMs);
                    }
                    return;
                }
            }
            catch (Exception)
            {
                // The reader notices as well, and says so.
            }
            finally
            {
                lock (_lock) _isWriterGone = true;
                if (_isGone) CloseTcp();
            }
        }

        private void Put(SocketEvent one)
        {
            lock (_lock)
            {
                while (_events.Count >= EventsMax && !_isGone) Monitor.Wait(_lock);
                if (!_isGone) _events.Enqueue(one);
            }
        }

        private void PutEnd(SocketEvent end)
        {
            bool hasAnswer;
            lock (_lock)
            {
                _events.Enqueue(end);
                _isGone = _isEnded = true;
                // The writer has the answer to the peer's close to send, and closes then.
                hasAnswer = _outgoing.Count > 0 && end.Code != 0 && !_isWriterGone;
                Monitor.PulseAll(_lock);
            }
            if (!hasAnswer) CloseTcp();
        }

        private static void StartThread(ThreadStart run, string name)
        {
            // A thread in the background does not keep the game from ending.
            new Thread(run) { IsBackground = true, Name = name }.Start();
        }
    }
}
#endif
