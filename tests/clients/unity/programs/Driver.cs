using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Streamer;
using Streamer.Net;

/// <summary>
/// The driver of the conformance suite: commands on standard input, events on standard
/// output, one JSON object per line. Uses the client as an application does.
/// </summary>
internal static class Driver
{
    /// <summary>A frame of a game; short, since the suite accelerates the clock.</summary>
    private const int FrameMs = 1;

    private static readonly BlockingCollection<JsonValue> Commands = new BlockingCollection<JsonValue>();
    private static readonly TextWriter Out =
        new StreamWriter(Console.OpenStandardOutput(), new UTF8Encoding(false)) { AutoFlush = true };
    private static Session _session;

    private static void Main()
    {
        Out.WriteLine(
            "{\"event\":\"ready\",\"protocol\":1,\"client\":\"Unity\","
            + "\"transports\":[\"websocket\"],\"capabilities\":[\"ack\",\"clock\",\"first_message\","
            + "\"int64\",\"mark\",\"network\",\"nul\",\"page\",\"pause\",\"queue\",\"random\",\"token_source\"]}");
        new Thread(ReadCommands) { IsBackground = true }.Start();
        while (true)
        {
            JsonValue command;
            while (Commands.TryTake(out command))
            {
                if (command.IsMissing) return;
                try
                {
                    Obey(command);
                }
                catch (Exception error)
                {
                    Say("failed", "error", JsonValue.Of(error.ToString()));
                }
            }
            if (_session != null) _session.Tick();
            Thread.Sleep(FrameMs);
        }
    }

    private static void ReadCommands()
    {
        var input = new StreamReader(Console.OpenStandardInput(), new UTF8Encoding(false));
        string line;
        while ((line = input.ReadLine()) != null) Commands.Add(JsonValue.Parse(line));
        Commands.Add(JsonValue.Missing);
    }

    private static void Obey(JsonValue command)
    {
        string name = command["cmd"].AsString();
        if (name == "connect") _session = new Session(command);
        else if (_session == null) throw new InvalidOperationException("there is no client");
        else if (name == "close")
        {
            _session.Close();
            _session = null;
            Say("closed");
        }
        else _session.Obey(name, command);
    }

    internal static void Say(string name, params object[] membersAndValues)
    {
        var line = new object[membersAndValues.Length + 2];
        line[0] = "event";
        line[1] = name;
        membersAndValues.CopyTo(line, 2);
        Out.WriteLine(JsonValue.ObjectOf(line));
    }

    /// <summary>One client, and what an application knows of it.</summary>
    private sealed class Session
    {
        private readonly StreamerClient _client;
        private readonly ScaledClock _clock;
        private readonly Watched _store;
        private TaskCompletionSource<string> _wanted;
        private bool _isPaused;
        private string _toldCursor;
        private int? _toldNumber;

        internal Session(JsonValue command)
        {
            _clock = new ScaledClock(command["scale"].AsDouble(1), command["random"]);
            _store = new Watched();
            var topics = new List<string>();
            for (int i = 0; i < command["topics"].Count; i++) topics.Add(command["topics"][i].AsString());
            _client = new StreamerClient(new StreamerOptions
            {
                Url = command["url"].AsString(),
                Token = command["token"].AsString(),
                TokenSource = command["token_source"].AsBool() ? WantToken : (TokenSource)null,
                StartCursor = command["cursor"].AsString(),
                CursorStore = _store,
                Topics = topics,
                Sockets = new TcpSocketFactory(),
                Http = new WebRequestHttp(),
                Clock = _clock
            });
            _toldCursor = _store.Cursor = command["cursor"].AsString();
            _client.NotificationReceived += delegate (Notification one)
            {
                // The client stores the cursor when this has returned.
                Tell("notification", one.Cursor ?? _store.Cursor, "notification", ObjectOf(one), "cursor", one.Cursor);
            };
            _client.Removed += delegate (Removal one)
            {
                if (one.ReplacedBy == null) Tell("withdrawn", _client.Cursor, "notification_id", one.Id);
                else Tell("replaced", _store.Cursor, "notification_id", one.Id, "by", one.ReplacedBy);
            };
            _client.GapFound += delegate (Gap gap)
            {
                Tell("gap", gap.To, "reason", gap.Reason,
                    "topic", gap.Topic == null ? JsonValue.Missing : JsonValue.Of(gap.Topic),
                    "everyone", gap.Everyone ? JsonValue.True : JsonValue.Missing);
            };
            _client.ReadChanged += delegate (ReadChange change)
            {
                Tell("read", _store.Cursor,
                    "ids", change.Ids == null ? JsonValue.Missing : JsonValue.ArrayOf(change.Ids),
                    "up_to", change.UpTo == null ? JsonValue.Missing : JsonValue.Of(change.UpTo),
                    "all", change.All ? JsonValue.True : JsonValue.Missing,
                    "read", JsonValue.Of(change.IsRead));
            };
            _client.UnreadChanged += delegate
            {
                if (_client.Unread != _toldNumber) Tell("unread", _store.Cursor);
            };
            _client.StateChanged += delegate (StreamerState state)
            {
                if (state != StreamerState.Ended)
                    Say("status", "status", state.ToString().ToLowerInvariant());
            };
            _client.Ended += delegate (StreamEnd end)
            {
                Say("stopped", "code", JsonValue.Of((long)end.Code), "reason", end.Detail);
            };
            _client.Failed += delegate (Exception error) { Console.Error.WriteLine(error.Message); };
            _client.Start();
        }

        internal void Tick()
        {
            if (_isPaused) return;
            _client.Tick();
            if (_store.Cursor != _toldCursor) Tell("moved", _store.Cursor);
        }

        internal void Close() { _client.Dispose(); }

        internal void Obey(string name, JsonValue command)
        {
            switch (name)
            {
                case "mark":
                    Answer(command, Mark(command), delegate (int unread)
                    {
                        Say("result", "id", command["id"], "ok", JsonValue.True, "unread", JsonValue.Of((long)unread));
                    });
                    break;
                case "ack":
                    Answer(command, AckAsync(command["cursor"].AsString()), delegate
                    {
                        Say("result", "id", command["id"], "ok", JsonValue.True);
                    });
                    break;
                case "page":
                    Answer(command, _client.ReadPageAsync(QueryOf(command["query"])), delegate (Page page)
                    {
                        Say("result", "id", command["id"], "ok", JsonValue.True, "body", ObjectOf(page));
                    });
                    break;
                case "token":
                    TaskCompletionSource<string> wanted = _wanted;
                    string error = command["error"].AsString();
                    if (error == null) wanted.TrySetResult(command["token"].AsString());
                    else wanted.TrySetException(new Exception(error));
                    break;
                case "sleep":
                    _clock.Skip(command["s"].AsDouble());
                    break;
                case "online":
                    _client.SetNetwork(true);
                    break;
                case "offline":
                    _client.SetNetwork(false);
                    break;
                case "pause":
                    _isPaused = true;
                    break;
                case "resume":
                    _isPaused = false;
                    break;
                case "state":
                    Say("result", "id", command["id"], "ok", JsonValue.True);
                    break;
                default:
                    throw new NotSupportedException("no such command: " + name);
            }
        }

        private Task<int> Mark(JsonValue command)
        {
            if (command["all"].AsBool()) return _client.MarkAllRead();
            if (!command["up_to"].IsMissing) return _client.MarkReadUpTo(command["up_to"].AsString());
            var ids = new string[command["ids"].Count];
            for (int i = 0; i < ids.Length; i++) ids[i] = command["ids"][i].AsString();
            return _client.MarkRead(ids);
        }

        private async Task<bool> AckAsync(string cursor)
        {
            await _client.Ack(cursor);
            return true;
        }

        private static async void Answer<T>(JsonValue command, Task<T> task, Action<T> then)
        {
            try
            {
                then(await task);
            }
            catch (Exception error)
            {
                Say("result", "id", command["id"], "ok", JsonValue.False, "error", error.Message);
            }
        }

        private Task<string> WantToken()
        {
            _wanted = new TaskCompletionSource<string>();
            Say("token_wanted");
            return _wanted.Task;
        }

        private void Tell(string name, string stored, params object[] membersAndValues)
        {
            _toldCursor = stored;
            _toldNumber = _client.Unread;
            var members = new List<object>(membersAndValues)
            {
                "stored", stored,
                "number", _toldNumber.HasValue ? JsonValue.Of((long)_toldNumber.Value) : JsonValue.Null
            };
            Say(name, members.ToArray());
        }

        private static PageQuery QueryOf(JsonValue query)
        {
            return new PageQuery
            {
                Limit = query["limit"].IsMissing ? 0 : int.Parse(query["limit"].AsString(), CultureInfo.InvariantCulture),
                Before = query["before"].AsString(),
                After = query["after"].AsString(),
                Topic = query["topic"].AsString(),
                Types = query["type"].IsMissing ? null : query["type"].AsString().Split(','),
                Priorities = query["priority"].IsMissing ? null : query["priority"].AsString().Split(','),
                UnreadOnly = query["unread"].AsString() == "true",
                OldestFirst = query["order"].AsString() == "oldest"
            };
        }

        private static JsonValue ObjectOf(Page page)
        {
            var list = new List<JsonValue>();
            foreach (Notification one in page.Notifications) list.Add(ObjectOf(one));
            return JsonValue.ObjectOf(
                "notifications", JsonValue.ArrayOf(list), "next", page.Next,
                "unread", JsonValue.Of((long)page.Unread), "cursor", page.Cursor,
                "gap", Optional(page.Gap));
        }

        /// <summary>Return a notification as the application sees it, in the form of the protocol.</summary>
        private static JsonValue ObjectOf(Notification one)
        {
            JsonValue properties = JsonValue.Missing;
            if (one.Properties.Count > 0)
            {
                var list = new List<JsonValue>();
                foreach (Property item in one.Properties)
                    list.Add(JsonValue.ObjectOf("key", item.Key, "value", item.Value));
                properties = JsonValue.ArrayOf(list);
            }
            return JsonValue.ObjectOf(
                "id", one.Id, "created_at", TimeOf(one.CreatedAt), "type", Optional(one.Type),
                "title", Optional(one.Title), "body", Optional(one.Body), "data", one.Data,
                "properties", properties,
                "priority", one.Priority == "medium" ? JsonValue.Missing : JsonValue.Of(one.Priority),
                "resource", one.ResourceUrl == null
                    ? JsonValue.Missing
                    : JsonValue.ObjectOf("url", one.ResourceUrl, "etag", Optional(one.ResourceEtag)),
                "source", Optional(one.Source), "topic", Optional(one.Topic),
                "everyone", one.Everyone ? JsonValue.True : JsonValue.Missing,
                "expires_at", TimeOf(one.ExpiresAt), "collapse_key", Optional(one.CollapseKey),
                "due_at", TimeOf(one.DueAt), "read_at", TimeOf(one.ReadAt));
        }

        private static JsonValue Optional(string text)
        {
            return text == null ? JsonValue.Missing : JsonValue.Of(text);
        }

        private static JsonValue TimeOf(DateTime? time)
        {
            return time.HasValue
                ? JsonValue.Of(time.Value.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture))
                : JsonValue.Missing;
        }
    }

    /// <summary>Time that runs faster, and can be set ahead as sleep does.</summary>
    private sealed class ScaledClock : IClock
    {
        private readonly SystemClock _real = new SystemClock();
        private readonly double _scale;
        private readonly JsonValue _random;
        private readonly double _startUnixS;
        private double _skippedS;

        internal ScaledClock(double scale, JsonValue random)
        {
            _scale = scale;
            _random = random;
            _startUnixS = _real.UnixS;
        }

        public double NowS { get { return _real.NowS / _scale + _skippedS; } }

        public double UnixS { get { return _startUnixS + NowS; } }

        public double Random()
        {
            return _random.Kind == JsonKind.Number ? _random.AsDouble() : _real.Random();
        }

        internal void Skip(double seconds) { _skippedS += seconds; }
    }

    private sealed class Watched : ICursorStore
    {
        internal string Cursor;

        public string Load(string name) { return null; }

        public void Save(string name, string value)
        {
            if (name.StartsWith("streamer.cursor ", StringComparison.Ordinal)) Cursor = value;
        }

        public void Flush() { }
    }
}
