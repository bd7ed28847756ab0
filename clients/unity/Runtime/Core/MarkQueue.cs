using System;
using System.Collections.Generic;
using System.Threading.Tasks;

namespace Streamer
{
    /// <summary>
    /// Marks and acknowledgements on their way to the server, in order, kept over outages
    /// and restarts of the game. All of them are idempotent: one whose response was lost is
    /// sent again. One request at a time; the next ids join those that wait.
    /// </summary>
    internal sealed class MarkQueue
    {
        /// <summary>Ids that the server accepts in one mark.</summary>
        internal const int IdsMax = 1000;
        /// <summary>More operations than a player makes; beyond it the oldest is dropped.</summary>
        internal const int OperationsMax = 200;

        private const double RetryMaxS = 60;
        private const double HopelessMaxS = 600;

        private readonly Rest _rest;
        private readonly IClock _clock;
        private readonly ICursorStore _store;
        private readonly Action<StreamerException> _onRefused;
        private readonly List<Operation> _operations = new List<Operation>();
        private Task<JsonValue> _sending;
        private string _name;
        private double _notBeforeS = double.MinValue;
        private int _failures;

        internal MarkQueue(
            Rest rest, IClock clock, ICursorStore store, Action<StreamerException> onRefused)
        {
            _rest = rest;
            _clock = clock;
            _store = store;
            _onRefused = onRefused;
        }

        internal int Count { get { return _operations.Count; } }

        /// <summary>Continue with what was saved under a name; what is queued for another is left there.</summary>
        internal void Open(string name)
        {
            if (name == _name) return;
            // Operations before the player was known belong to this one.
            var early = _name == null ? new List<Operation>(_operations) : new List<Operation>();
            _name = name;
            _operations.Clear();
            _sending = null;
            Load(_store.Load(name));
            if (early.Count == 0) return;
            _operations.AddRange(early);
            Save();
        }

        internal Task<int> Read(IEnumerable<string> ids) { return AddIds("read", ids); }

        internal Task<int> Unread(IEnumerable<string> ids) { return AddIds("unread", ids); }

        internal Task<int> ReadUpTo(string cursor)
        {
            return Add(new Operation("read", JsonValue.ObjectOf("up_to", cursor)));
        }

        internal Task<int> ReadAll()
        {
            return Add(new Operation("read", JsonValue.ObjectOf("all", JsonValue.True)));
        }

        internal Task Ack(string cursor)
        {
            // A later one includes those before.
            for (int i = _operations.Count - 1; i >= FirstWaiting; i--)
            {
                if (_operations[i].Action != "ack") continue;
                Operation earlier = _operations[i];
                _operations.RemoveAt(i);
                return Add(new Operation("ack", JsonValue.ObjectOf("cursor", cursor), earlier.Done));
            }
            return Add(new Operation("ack", JsonValue.ObjectOf("cursor", cursor)));
        }

        /// <summary>The network or the app is back: do not wait for the next attempt.</summary>
        internal void Hurry()
        {
            _notBeforeS = Math.Min(_notBeforeS, _clock.NowS + Reconnect.FirstS * _clock.Random());
        }

        /// <summary>Stop. What waits is sent in the next run of the game, if the store keeps it.</summary>
        internal void Close()
        {
            var waiting = new List<Operation>(_operations);
            _operations.Clear();
            _sending = null;
            foreach (Operation one in waiting)
                one.Done.TrySetException(new StreamerException("the client is closed; the mark is kept"));
        }

        internal void Tick()
        {
            if (_sending != null && _sending.IsCompleted) Finish();
            if (_sending != null || _operations.Count == 0 || _clock.NowS < _notBeforeS) return;
            Operation first = _operations[0];
            _sending = _rest.SendAsync(
                "POST", "players/me/notifications/" + first.Action, first.Body.ToString(), 1);
        }

        private int FirstWaiting { get { return _sending == null ? 0 : 1; } }

        private void Finish()
        {
            Task<JsonValue> sent = _sending;
            _sending = null;
            if (sent.IsFaulted)
            {
                var error = (StreamerException)sent.Exception.InnerException;
                // 401: another token may come.
                bool isFinal = error.Status >= 400 && error.Status < 500
                    && error.Status != 401 && !error.IsTemporary;
                if (!isFinal)
                {
                    // A hopeless token stays so for long, and the source is asked each time.
                    double maxS = error.Status == 401 ? HopelessMaxS : RetryMaxS;
                    _notBeforeS = _clock.NowS + error.RetryAfterS + Reconnect.FirstS
                        + Reconnect.FullJitterS(_failures++, _clock.Random(), maxS);
                    return;
                }
                Drop(0, error);
                return;
            }
            _failures = 0;
            Operation done = _operations[0];
            _operations.RemoveAt(0);
            Save();
            done.Done.TrySetResult(sent.Result["unread"].AsInt());
        }

        private void Drop(int index, StreamerException error)
        {
            Operation dropped = _operations[index];
            _operations.RemoveAt(index);
            Save();
            dropped.Done.TrySetException(error);
            _onRefused(error);
        }

        private Task<int> AddIds(string action, IEnumerable<string> ids)
        {
            var wanted = new List<string>(ids);
            if (wanted.Count == 0) throw new ArgumentException("there are no ids");
            TaskCompletionSource<int> done = null;
            Operation last = _operations.Count > FirstWaiting ? _operations[_operations.Count - 1] : null;
            JsonValue had = last != null && last.Action == action ? last.Body["ids"] : JsonValue.Missing;
            if (had.Count > 0 && had.Count + wanted.Count <= IdsMax)
            {
                for (int i = had.Count - 1; i >= 0; i--) wanted.Insert(0, had[i].AsString());
                _operations.RemoveAt(_operations.Count - 1);
                done = last.Done;
            }
            Task<int> result = null;
            for (int i = 0; i < wanted.Count; i += IdsMax)
            {
                List<string> part = wanted.GetRange(i, Math.Min(IdsMax, wanted.Count - i));
                JsonValue body = JsonValue.ObjectOf("ids", JsonValue.ArrayOf(part));
                result = Add(new Operation(action, body, done));
            }
            return result;
        }

        private Task<int> Add(Operation operation)
        {
            _operations.Add(operation);
            Save();
            if (_operations.Count > OperationsMax)
                Drop(FirstWaiting, new StreamerException("too many marks wait; the oldest is dropped"));
            return operation.Done.Task;
        }

        private void Save()
        {
            if (_name == null) return;
            if (_operations.Count == 0)
            {
                _store.Save(_name, null);
                return;
            }
            var saved = new List<JsonValue>();
            foreach (Operation one in _operations)
                saved.Add(JsonValue.ObjectOf("action", one.Action, "body", one.Body));
            _store.Save(_name, JsonValue.ArrayOf(saved).ToString());
        }

        private void Load(string text)
        {
            if (string.IsNullOrEmpty(text)) return;
            try
            {
                JsonValue saved = JsonValue.Parse(text);
                for (int i = 0; i < saved.Count; i++)
                {
                    string action = saved[i]["action"].AsString();
                    bool isKnown = action == "read" || action == "unread" || action == "ack";
                    if (isKnown && saved[i]["body"].Kind == JsonKind.Object)
                        _operations.Add(new Operation(action, saved[i]["body"]));
                }
            }
            catch (JsonException)
            {
                // Somebody else has written there. A lost mark does less harm than a client
                // that does not start.
            }
        }

        private sealed class Operation
        {
            internal readonly string Action;
            internal readonly JsonValue Body;
            internal readonly TaskCompletionSource<int> Done;

            internal Operation(string action, JsonValue body, TaskCompletionSource<int> done = null)
            {
                Action = action;
                Body = body;
                Done = done ?? new TaskCompletionSource<int>();
            }
        }
    }
}
