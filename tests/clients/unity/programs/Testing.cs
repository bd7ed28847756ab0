using System;
using System.Collections.Generic;
using System.Reflection;
using System.Threading.Tasks;
using Streamer;

/// <summary>
/// Runs every public static method of the classes whose names end in "Tests", and prints
/// one line for each: its name, and what was wrong, as JSON.
/// </summary>
internal static class Program
{
    internal static string CountingPath;

    private static void Main(string[] arguments)
    {
        CountingPath = arguments[0];
        foreach (Type type in Assembly.GetExecutingAssembly().GetTypes())
        {
            if (!type.Name.EndsWith("Tests", StringComparison.Ordinal)) continue;
            foreach (MethodInfo test in type.GetMethods(BindingFlags.Public | BindingFlags.Static))
            {
                string problem = null;
                try
                {
                    test.Invoke(null, null);
                }
                catch (TargetInvocationException error)
                {
                    problem = error.InnerException.ToString();
                }
                Console.WriteLine(JsonValue.ObjectOf("test", type.Name + "." + test.Name, "problem", problem));
            }
        }
    }
}

internal static class Check
{
    internal static void Equal<T>(T wanted, T found)
    {
        if (!EqualityComparer<T>.Default.Equals(wanted, found))
            throw new Exception("wanted " + wanted + ", found " + found);
    }

    internal static void True(bool fact, string what)
    {
        if (!fact) throw new Exception("not true: " + what);
    }

    internal static void Throws<T>(Action action) where T : Exception
    {
        try
        {
            action();
        }
        catch (T)
        {
            return;
        }
        throw new Exception("no " + typeof(T).Name);
    }
}

/// <summary>A clock that a test moves.</summary>
internal sealed class FakeClock : IClock
{
    internal double AtS;
    internal double UnixAtS = 1800000000;
    internal double Fraction = 0.5;

    public double NowS { get { return AtS; } }

    public double UnixS { get { return UnixAtS; } }

    public double Random() { return Fraction; }

    internal void Pass(double seconds)
    {
        AtS += seconds;
        UnixAtS += seconds;
    }
}

internal sealed class FakeSocket : ISocket
{
    internal readonly string Url;
    internal readonly double OpenedAtS;
    internal readonly List<string> Sent = new List<string>();
    internal bool IsClosed;
    internal bool IsAborted;
    private readonly Queue<SocketEvent> _events = new Queue<SocketEvent>();

    internal FakeSocket(string url, double atS)
    {
        Url = url;
        OpenedAtS = atS;
    }

    internal bool IsGone { get { return IsClosed || IsAborted; } }

    internal int Waiting { get { return _events.Count; } }

    public bool TryTake(out SocketEvent taken)
    {
        taken = _events.Count > 0 ? _events.Dequeue() : new SocketEvent();
        return taken.Text != null || taken.Kind != SocketEventKind.Opened || taken.Code == -1;
    }

    public void Send(string text) { Sent.Add(text); }

    public void Close() { IsClosed = true; }

    public void Abort() { IsAborted = true; }

    internal void Accept() { _events.Enqueue(new SocketEvent(SocketEventKind.Opened, null, -1)); }

    internal void Say(string text) { _events.Enqueue(new SocketEvent(SocketEventKind.Text, text)); }

    internal void End(int code, string reason = "")
    {
        _events.Enqueue(new SocketEvent(SocketEventKind.Closed, reason, code));
    }

    internal void Refuse(int status, string body = "", string retryAfter = null)
    {
        _events.Enqueue(new SocketEvent(SocketEventKind.Closed, body, 0, status, retryAfter));
    }
}

internal sealed class FakeHttp : IHttp
{
    internal sealed class Exchange : IHttpExchange
    {
        internal HttpRequest Request;
        internal string Token;
        internal bool IsAborted;

        public bool IsDone { get; private set; }
        public HttpResponse Response { get; private set; }
        public string Problem { get; private set; }

        public void Abort() { IsAborted = true; }

        internal void Answer(int status, string body = "", string retryAfter = null)
        {
            Response = new HttpResponse { Status = status, Body = body, RetryAfter = retryAfter };
            IsDone = true;
        }

        internal void Lose()
        {
            Problem = "lost";
            IsDone = true;
        }
    }

    internal readonly List<Exchange> Exchanges = new List<Exchange>();

    internal Exchange Last { get { return Exchanges[Exchanges.Count - 1]; } }

    public IHttpExchange Start(HttpRequest request)
    {
        var exchange = new Exchange { Request = request, Token = request.Token };
        Exchanges.Add(exchange);
        return exchange;
    }
}

/// <summary>A client with fakes around it, and what it has told.</summary>
internal sealed class World : ISocketFactory
{
    internal const double FrameS = 0.1;

    internal readonly FakeClock Clock = new FakeClock();
    internal readonly FakeHttp Http = new FakeHttp();
    internal readonly List<FakeSocket> Sockets = new List<FakeSocket>();
    internal readonly List<Notification> Notifications = new List<Notification>();
    internal readonly List<Exception> Failures = new List<Exception>();
    internal readonly StreamerOptions Options;
    internal StreamerClient Client;

    internal World(Action<StreamerOptions> change = null)
    {
        Options = new StreamerOptions
        {
            Url = "https://push.example/", Token = "t0", Sockets = this, Http = Http, Clock = Clock,
            CursorStore = new MemoryCursorStore()
        };
        if (change != null) change(Options);
        Begin();
    }

    internal FakeSocket Socket { get { return Sockets[Sockets.Count - 1]; } }

    /// <summary>The cursor that the next run of the game would begin with.</summary>
    internal string Stored
    {
        get { return Options.CursorStore.Load("streamer.cursor wss://push.example/v1/stream "); }
    }

    /// <summary>Begin with a client, as the next run of a game does.</summary>
    internal void Begin()
    {
        Client = new StreamerClient(Options);
        Client.NotificationReceived += Notifications.Add;
        Client.Failed += Failures.Add;
        Client.Start();
        Client.Tick();
    }

    public ISocket Open(string url)
    {
        Sockets.Add(new FakeSocket(url, Clock.NowS));
        return Socket;
    }

    /// <summary>Let frames pass for so many seconds.</summary>
    internal void Pass(double seconds)
    {
        for (double at = 0; at < seconds; at += FrameS)
        {
            Clock.Pass(FrameS);
            Client.Tick();
        }
    }

    internal void Hello(string members = "\"cursor\":\"c0\"")
    {
        Socket.Accept();
        Say("{\"type\":\"hello\"," + members + "}");
    }

    internal void Say(string text)
    {
        Socket.Say(text);
        Client.Tick();
    }

    /// <summary>Let the server end the connection, and wait for the next one.</summary>
    internal void Reconnect(int code = 1006)
    {
        int had = Sockets.Count;
        Socket.End(code);
        for (int i = 0; i < 1000 && Sockets.Count == had; i++) Pass(FrameS);
        Check.Equal(had + 1, Sockets.Count);
    }

    internal static string Note(string id, string cursor = null, string more = "")
    {
        return "{\"type\":\"notification\"," + (cursor == null ? "" : "\"cursor\":\"" + cursor + "\",")
            + "\"notification\":{\"id\":\"" + id + "\",\"created_at\":\"2026-11-20T22:52:39.123Z\"" + more + "}}";
    }

    internal static string Id(int number)
    {
        return "0197f1c2-0000-7000-8000-" + number.ToString("d12");
    }

    /// <summary>Return a JSON Web Token, as far as a client reads it.</summary>
    internal static string Jwt(string player, double iat, double exp)
    {
        string claims = JsonValue.ObjectOf(
            "sub", player, "iat", JsonValue.Of(iat), "exp", JsonValue.Of(exp)).ToString();
        string text = Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(claims));
        return "e30." + text.TrimEnd('=').Replace('+', '-').Replace('/', '_') + ".sig";
    }

    internal static Task<string> Done(string token) { return Task.FromResult(token); }
}
