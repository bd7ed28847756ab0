using System;
using System.Collections.Generic;

namespace Streamer
{
    public enum SocketEventKind { Opened, Text, Closed }

    /// <summary>Something that happened to a WebSocket.</summary>
    public struct SocketEvent
    {
        public readonly SocketEventKind Kind;
        /// <summary>The message, or why the connection ended.</summary>
        public readonly string Text;
        /// <summary>Of an ended connection: its close code, 0 without one.</summary>
        public readonly int Code;
        /// <summary>Of a refused handshake: the HTTP status, 0 if it was not refused.</summary>
        public readonly int Status;
        /// <summary>Of a refused handshake: the header Retry-After, null without one.</summary>
        public readonly string RetryAfter;

        public SocketEvent(
            SocketEventKind kind, string text = null, int code = 0, int status = 0,
            string retryAfter = null)
        {
            Kind = kind;
            Text = text;
            Code = code;
            Status = status;
            RetryAfter = retryAfter;
        }
    }

    /// <summary>
    /// One WebSocket connection, without callbacks: the client polls it. It holds a bounded
    /// number of messages; when they are not taken it stops reading.
    /// </summary>
    public interface ISocket
    {
        /// <summary>Take the next event. Does not wait; allocates nothing if there is none.</summary>
        bool TryTake(out SocketEvent taken);

        /// <summary>Send a text message. Does not wait. Does nothing after the end.</summary>
        void Send(string text);

        /// <summary>Say goodbye if that is possible without waiting, and be gone.</summary>
        void Close();

        /// <summary>Drop a dead connection without a close handshake.</summary>
        void Abort();
    }

    public interface ISocketFactory
    {
        /// <summary>Begin to connect. Returns at once; a failure is an event of the socket.</summary>
        ISocket Open(string url);
    }

    public sealed class HttpRequest
    {
        public string Method;
        public string Url;
        /// <summary>JSON, null without a body.</summary>
        public string Body;
        public string Token;
    }

    public sealed class HttpResponse
    {
        public int Status;
        public string Body;
        /// <summary>The header, null without one.</summary>
        public string RetryAfter;
    }

    /// <summary>An HTTP request on its way. Polled.</summary>
    public interface IHttpExchange
    {
        bool IsDone { get; }

        /// <summary>The response; null if there was none.</summary>
        HttpResponse Response { get; }

        /// <summary>Why there was no response.</summary>
        string Problem { get; }

        /// <summary>Drop it.</summary>
        void Abort();
    }

    public interface IHttp
    {
        /// <summary>Begin a request. Returns at once.</summary>
        IHttpExchange Start(HttpRequest request);
    }

    /// <summary>
    /// Where a client keeps the cursor of its player between two runs of the game. Called on
    /// the thread that calls <see cref="StreamerClient.Tick"/>.
    /// </summary>
    public interface ICursorStore
    {
        /// <summary>Return what was saved under a name, null if nothing was.</summary>
        string Load(string name);

        /// <summary>Replace what was saved; null removes it. May delay the writing.</summary>
        void Save(string name, string value);

        /// <summary>Write what is delayed: the app is about to be suspended or closed.</summary>
        void Flush();
    }

    /// <summary>Keeps everything until the program ends.</summary>
    public sealed class MemoryCursorStore : ICursorStore
    {
        private readonly Dictionary<string, string> _values = new Dictionary<string, string>();

        public string Load(string name)
        {
            string value;
            return _values.TryGetValue(name, out value) ? value : null;
        }

        public void Save(string name, string value)
        {
            if (value == null) _values.Remove(name);
            else _values[name] = value;
        }

        public void Flush() { }
    }

    /// <summary>The server refused a request, or there was no usable response.</summary>
    public sealed class StreamerException : Exception
    {
        /// <summary>The HTTP status; 0 without a response.</summary>
        public int Status { get; private set; }
        /// <summary>The word in the type of the problem, such as over-quota; null without one.</summary>
        public string Problem { get; private set; }
        /// <summary>Seconds that the server asks to wait; 0 without.</summary>
        public double RetryAfterS { get; internal set; }

        /// <summary>Whether the same request may succeed later.</summary>
        public bool IsTemporary { get; internal set; }

        public StreamerException(string message, int status = 0, string problem = null) : base(message)
        {
            Status = status;
            Problem = problem;
        }
    }
}
