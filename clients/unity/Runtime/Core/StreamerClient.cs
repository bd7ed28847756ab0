using System;
using System.Collections.Generic;
using System.Text;
using System.Threading.Tasks;

namespace Streamer
{
    /// <summary>The settings of a <see cref="StreamerClient"/>.</summary>
    public sealed class StreamerOptions
    {
        /// <summary>The server, such as https://push.game.example; a path in it is kept.</summary>
        public string Url;
        /// <summary>A player's token. Without a TokenSource the stream ends with it.</summary>
        public string Token;
        /// <summary>Returns tokens of your backend. Needed by all that runs longer than a token.</summary>
        public TokenSource TokenSource;
        /// <summary>
        /// The player, as a name for what is stored; null takes it from the token. Set it if
        /// your tokens are not JSON Web Tokens with the player in "sub".
        /// </summary>
        public string Player;
        /// <summary>Where to begin if nothing is stored: null is from now on; or "earliest".</summary>
        public string StartCursor;
        /// <summary>Keeps the cursor, and marks that wait; null keeps them in memory.</summary>
        public ICursorStore CursorStore;
        /// <summary>
        /// Store the cursor of a notification when its handlers have returned. With false
        /// call <see cref="StreamerClient.Commit"/> when your work is done.
        /// </summary>
        public bool AutoCommit = true;
        /// <summary>Topics to deliver although the player is not subscribed to them.</summary>
        public IList<string> Topics;
        /// <summary>A permanent name of the device, for notifications to the latest device.</summary>
        public string Device;
        /// <summary>Messages to process in one <see cref="StreamerClient.Tick"/>, so that a frame stays short.</summary>
        public int MessagesPerTick = 32;
        public ISocketFactory Sockets;
        public IHttp Http;
        public IClock Clock;
    }

    /// <summary>
    /// A player's notifications, live and durable: across lost connections, restarts of the
    /// server, tokens that end, and sleep.
    ///
    /// Call <see cref="Tick"/> in every frame, and at least once a second. All events and
    /// results come from within it, so on that thread. There are no other threads here; not
    /// safe for use from several.
    /// </summary>
    public sealed class StreamerClient : IDisposable, IStreamListener
    {
        private readonly StreamerOptions _options;
        private readonly TokenKeeper _tokens;
        private readonly NotificationStream _stream;
        private readonly Rest _rest;
        private readonly MarkQueue _marks;
        private readonly string _apiUrl;
        private readonly Dictionary<string, List<Action<Notification>>> _byType =
            new Dictionary<string, List<Action<Notification>>>();
        private bool _isTicking;
        private bool _isDisposed;
        private bool _hasPlayer;
        private bool _hasNetwork = true;

        /// <summary>A notification, once each, in order.</summary>
        public event Action<Notification> NotificationReceived;
        /// <summary>A notification has ended: take it off the screen.</summary>
        public event Action<Removal> Removed;
        /// <summary>Notifications are missing: see <see cref="FillGapAsync"/>.</summary>
        public event Action<Gap> GapFound;
        /// <summary>Something was marked, on any device. <see cref="UnreadChanged"/> follows.</summary>
        public event Action<ReadChange> ReadChanged;
        /// <summary>The number of unread notifications is another one.</summary>
        public event Action<int> UnreadChanged;
        public event Action<StreamerState> StateChanged;
        /// <summary>The server refused the stream for good. It does not reconnect.</summary>
        public event Action<StreamEnd> Ended;
        /// <summary>
        /// An error that ends nothing: of a handler, of the token source (repeated with
        /// back-off), or of a mark that the server refused (dropped).
        /// </summary>
        public event Action<Exception> Failed;

        /// <exception cref="ArgumentException">The URL is not one, or there is no token.</exception>
        public StreamerClient(StreamerOptions options)
        {
            _options = options;
            string url = (options.Url ?? "").TrimEnd('/');
            bool isSecure = url.StartsWith("https://", StringComparison.OrdinalIgnoreCase);
            bool isPlain = url.StartsWith("http://", StringComparison.OrdinalIgnoreCase);
            if ((!isSecure && !isPlain) || url.Length <= (isSecure ? 8 : 7))
                throw new ArgumentException("not an http(s) URL: " + options.Url);
            if (options.Sockets == null || options.Http == null)
                throw new ArgumentException("Sockets and Http are missing; see Streamer.Net or StreamerBehaviour");
            if (options.MessagesPerTick < 1)
                throw new ArgumentException("MessagesPerTick is less than 1");
            if (options.CursorStore == null) options.CursorStore = new MemoryCursorStore();
            if (options.Clock == null) options.Clock = new SystemClock();
            _apiUrl = url + "/v1/";
            _tokens = new TokenKeeper(options.Token, options.TokenSource, options.Clock, Report);
            _rest = new Rest(_apiUrl, options.Http, _tokens, options.Clock);
            _marks = new MarkQueue(_rest, options.Clock, options.CursorStore, Report);
            _stream = new NotificationStream(
                "ws" + url.Substring(4) + "/v1/stream", options, options.Sockets, _tokens,
                options.Clock, this);
        }

        public StreamerState State { get { return _stream.State; } }

        /// <summary>The number of unread notifications; null while it is unknown.</summary>
        public int? Unread { get { return _stream.Unread; } }

        /// <summary>The point up to which notifications were received.</summary>
        public string Cursor { get { return _stream.Cursor; } }

        /// <summary>Why the stream ended; null otherwise.</summary>
        public StreamEnd End { get { return _stream.End; } }

        /// <summary>Marks and acknowledgements that the server has not confirmed.</summary>
        public int PendingMarks { get { return _marks.Count; } }

        /// <summary>Connect, and stay connected. Also after the stream has ended.</summary>
        public void Start()
        {
            if (_isDisposed) throw new ObjectDisposedException("StreamerClient");
            _stream.Start();
        }

        /// <summary>Disconnect. <see cref="Start"/> resumes from the cursor.</summary>
        public void Stop()
        {
            _stream.Stop();
            _options.CursorStore.Flush();
        }

        /// <summary>Disconnect for good. Marks that wait are kept for the next run of the game.</summary>
        public void Dispose()
        {
            if (_isDisposed) return;
            Stop();
            _isDisposed = true;
            _rest.Close();
            _marks.Close();
        }

        /// <summary>Do what there is to do. Does not wait; allocates nothing when idle.</summary>
        public void Tick()
        {
            if (_isTicking || _isDisposed) return;
            _isTicking = true;
            try
            {
                _tokens.Tick();
                _stream.Tick();
                _marks.Tick();
                _rest.Tick();
            }
            finally
            {
                _isTicking = false;
            }
        }

        /// <summary>The app is about to be suspended: write what is to be kept.</summary>
        public void Suspend() { _options.CursorStore.Flush(); }

        /// <summary>
        /// The app runs again, or the network is back: check the connection at once, and cut
        /// a wait short. The delay that a server asked for is kept. May be called at any rate.
        /// </summary>
        public void Wake()
        {
            _tokens.Hurry();
            _marks.Hurry();
            _stream.Wake();
        }

        /// <summary>
        /// What the platform says of the network. Without one the client waits; when it is
        /// back it reconnects at once. May be called at any rate.
        /// </summary>
        public void SetNetwork(bool isReachable)
        {
            if (isReachable && !_hasNetwork)
            {
                _tokens.Hurry();
                _marks.Hurry();
            }
            _hasNetwork = isReachable;
            _stream.SetNetwork(isReachable);
        }

        /// <summary>Store a cursor by hand. Only without <see cref="StreamerOptions.AutoCommit"/>.</summary>
        public void Commit(string cursor) { _stream.Commit(cursor); }

        /// <summary>Call a handler for notifications of one type. Dispose the result to stop that.</summary>
        public IDisposable On(string type, Action<Notification> handle)
        {
            List<Action<Notification>> handlers;
            if (!_byType.TryGetValue(type, out handlers))
                _byType[type] = handlers = new List<Action<Notification>>();
            handlers.Add(handle);
            return new Subscription(handlers, handle);
        }

        /// <summary>Call a handler with the data of a notification as a type of yours.</summary>
        public IDisposable On<T>(string type, Func<JsonValue, T> read, Action<Notification, T> handle)
        {
            return On(type, delegate (Notification one) { handle(one, read(one.Data)); });
        }

        /// <summary>
        /// Mark as read, now or when the server can be reached: also after a restart, if the
        /// store keeps it. Idempotent. The task ends with the number of unread then, or with
        /// a <see cref="StreamerException"/> if the server refuses; there is no need to wait.
        /// </summary>
        public Task<int> MarkRead(params string[] ids) { return _marks.Read(ids); }

        /// <summary>Remove read marks. Otherwise as <see cref="MarkRead"/>.</summary>
        public Task<int> MarkUnread(params string[] ids) { return _marks.Unread(ids); }

        /// <summary>Mark everything up to a cursor or an id, inclusive. Otherwise as <see cref="MarkRead"/>.</summary>
        public Task<int> MarkReadUpTo(string cursor) { return _marks.ReadUpTo(cursor); }

        /// <summary>Mark everything as read; offline, everything that has arrived.</summary>
        public Task<int> MarkAllRead()
        {
            // What arrives before the server can be reached has not been seen.
            if (State == StreamerState.Open || !HasArrived) return _marks.ReadAll();
            return _marks.ReadUpTo(Cursor);
        }

        /// <summary>
        /// Confirm everything up to a cursor or an id, by default that of the stream, for the
        /// receipts of the sender. Otherwise as <see cref="MarkRead"/>.
        /// </summary>
        public Task Ack(string cursor = null)
        {
            if (cursor == null && HasArrived) cursor = Cursor;
            if (cursor == null) throw new InvalidOperationException("nothing has arrived yet");
            return _marks.Ack(cursor);
        }

        /// <summary>Whether the cursor is a point in the inbox, and not only where to begin.</summary>
        private bool HasArrived { get { return Cursor != null && Cursor != "earliest"; } }

        /// <summary>Return a page. The task fails with a <see cref="StreamerException"/>.</summary>
        public async Task<Page> ReadPageAsync(PageQuery query = null)
        {
            JsonValue value = await _rest.SendAsync(
                "GET", "players/me/notifications" + QueryOf(query ?? new PageQuery()));
            return Readable(Page.Read, value);
        }

        /// <summary>Return one notification; status 404 if the inbox does not have it.</summary>
        public async Task<Notification> GetAsync(string id)
        {
            JsonValue value = await _rest.SendAsync(
                "GET", "players/me/notifications/" + Uri.EscapeDataString(id));
            return Readable(Notification.Read, value);
        }

        /// <summary>Delete a notification from the inbox, on all devices. Idempotent.</summary>
        public Task DeleteAsync(string id)
        {
            return _rest.SendAsync("DELETE", "players/me/notifications/" + Uri.EscapeDataString(id));
        }

        /// <summary>Subscribe the player to a topic that its token allows. Idempotent.</summary>
        public Task JoinTopicAsync(string topic)
        {
            return _rest.SendAsync("PUT", "players/me/topics/" + TopicPath(topic));
        }

        /// <summary>Unsubscribe the player from a topic; its notifications are gone. Idempotent.</summary>
        public Task LeaveTopicAsync(string topic)
        {
            return _rest.SendAsync("DELETE", "players/me/topics/" + TopicPath(topic));
        }

        /// <summary>
        /// Return the notifications that a gap has left out and that are still kept, oldest
        /// first: without those that the stream has delivered, and at most
        /// <paramref name="max"/>, the newest ones. The stream does not deliver them again.
        /// Until it has succeeded no cursor is stored by itself: after a restart of the game
        /// the gap is told again. If it fails, call it again with the same gap.
        /// </summary>
        public async Task<IList<Notification>> FillGapAsync(Gap gap, int max = 1000)
        {
            _stream.BeginFill(gap);
            var found = new List<Notification>();
            var query = new PageQuery { Limit = 100, Topic = gap.Topic };
            // In another inbox than before, the old cursor means nothing.
            if (gap.IsFromValid) query.After = gap.From;
            do
            {
                Page page = await ReadPageAsync(query);
                foreach (Notification one in page.Notifications)
                {
                    if (found.Count == max) break;
                    if (_stream.Seen.Contains(one.Id)) continue;
                    _stream.Seen.MarkDelivered(one.Id);
                    found.Add(one);
                }
                query.Before = page.Next;
            }
            while (query.Before != null && found.Count < max);
            found.Reverse();
            _stream.EndFill(gap);
            return found;
        }

        private static T Readable<T>(Func<JsonValue, T> read, JsonValue value)
        {
            try
            {
                return read(value);
            }
            catch (UnreadableException error)
            {
                throw new StreamerException("unreadable response: " + error.Message, 200);
            }
        }

        private static string TopicPath(string topic)
        {
            return Uri.EscapeDataString(topic).Replace("%2F", "/");
        }

        private static string QueryOf(PageQuery query)
        {
            var text = new StringBuilder();
            if (query.Limit > 0) AddParameter(text, "limit", query.Limit.ToString());
            AddParameter(text, "before", query.Before);
            AddParameter(text, "after", query.After);
            AddParameter(text, "topic", query.Topic);
            // A comma separates values.
            foreach (string type in query.Types ?? new string[0])
                AddParameter(text, "type", type.Replace(",", "\\,"));
            foreach (string priority in query.Priorities ?? new string[0])
                AddParameter(text, "priority", priority);
            if (query.UnreadOnly) AddParameter(text, "unread", "true");
            if (query.OldestFirst) AddParameter(text, "order", "oldest");
            return text.ToString();
        }

        private static void AddParameter(StringBuilder to, string name, string value)
        {
            if (value == null) return;
            to.Append(to.Length == 0 ? '?' : '&').Append(name).Append('=');
            to.Append(Uri.EscapeDataString(value));
        }

        private void Report(Exception error)
        {
            Action<Exception> handlers = Failed;
            if (handlers == null) return;
            try
            {
                handlers(error);
            }
            catch (Exception)
            {
                // The handler of errors has failed; there is nobody left to tell.
            }
        }

        /// <summary>Call handlers. What one of them throws is reported and ends nothing.</summary>
        private void Raise<T>(Action<T> handlers, T with)
        {
            if (handlers == null) return;
            foreach (Delegate handler in handlers.GetInvocationList()) Call((Action<T>)handler, with);
        }

        private void Call<T>(Action<T> handler, T with)
        {
            try
            {
                handler(with);
            }
            catch (Exception error)
            {
                Report(error);
            }
        }

        void IStreamListener.OnState(StreamerState state)
        {
            if (state == StreamerState.Open) _marks.Hurry();
            Raise(StateChanged, state);
        }

        void IStreamListener.OnPlayer(string player)
        {
            // What was asked for one player is not for another one.
            if (_hasPlayer) _rest.Abort("the player is another one");
            _hasPlayer = true;
            _marks.Open("streamer.marks " + _apiUrl + " " + player);
        }

        void IStreamListener.OnNotification(Notification notification)
        {
            Raise(NotificationReceived, notification);
            List<Action<Notification>> handlers;
            if (notification.Type == null || !_byType.TryGetValue(notification.Type, out handlers)) return;
            foreach (Action<Notification> handler in handlers.ToArray()) Call(handler, notification);
        }

        void IStreamListener.OnCursor(string cursor)
        {
            if (_options.AutoCommit && !_stream.HasUnfilledGap) _stream.Commit(cursor);
        }

        void IStreamListener.OnRemoval(Removal removal) { Raise(Removed, removal); }

        void IStreamListener.OnGap(Gap gap) { Raise(GapFound, gap); }

        void IStreamListener.OnRead(ReadChange change) { Raise(ReadChanged, change); }

        void IStreamListener.OnUnread(int unread) { Raise(UnreadChanged, unread); }

        void IStreamListener.OnEnded(StreamEnd end) { Raise(Ended, end); }

        private sealed class Subscription : IDisposable
        {
            private readonly List<Action<Notification>> _handlers;
            private readonly Action<Notification> _handler;

            internal Subscription(List<Action<Notification>> handlers, Action<Notification> handler)
            {
                _handlers = handlers;
                _handler = handler;
            }

            public void Dispose() { _handlers.Remove(_handler); }
        }
    }
}
