using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Streamer
{
    /// <summary>What a client is doing.</summary>
    public enum StreamerState
    {
        /// <summary>Not started, or stopped by the application.</summary>
        Stopped,
        /// <summary>Getting a token, opening a connection, or waiting for its greeting.</summary>
        Connecting,
        /// <summary>Notifications arrive.</summary>
        Open,
        /// <summary>The connection ended; the next attempt comes by itself.</summary>
        Waiting,
        /// <summary>The server refused the stream for good. See <see cref="StreamEnd"/>.</summary>
        Ended
    }

    /// <summary>Why the server refused a stream for good.</summary>
    public sealed class StreamEnd
    {
        /// <summary>4200 to 4299, see the protocol.</summary>
        public int Code { get; internal set; }
        /// <summary>What the server says about it.</summary>
        public string Detail { get; internal set; }
    }

    /// <summary>What a stream tells its client, in order.</summary>
    internal interface IStreamListener
    {
        void OnState(StreamerState state);
        void OnPlayer(string player);
        void OnNotification(Notification notification);
        void OnRemoval(Removal removal);
        void OnGap(Gap gap);
        void OnRead(ReadChange change);
        void OnUnread(int unread);
        void OnCursor(string cursor);
        void OnEnded(StreamEnd end);
    }

    /// <summary>
    /// The stream of one player over all its connections, as a state machine. Nothing
    /// happens outside <see cref="Tick"/>: no thread, no timer, no callback.
    ///
    /// <code>
    ///   Idle -Start-> Token -> Opening -> Greeting -hello-> Open
    ///                  ^          |           |              |     any ending
    ///                  |          +-----------+--------------+---> Wait -> Token
    ///                  +-- 4200, once                        +---> Ended (42xx)
    /// </code>
    ///
    /// The cursor moves when the application has finished with an event. Messages that
    /// nobody has taken wait in the socket, which then stops reading: the server notices,
    /// closes the stream as slow, and the next connection continues from the cursor.
    /// </summary>
    internal sealed class NotificationStream
    {
        /// <summary>For TCP, TLS and the handshake.</summary>
        internal const double OpenTimeoutS = 10;
        /// <summary>Silence before hello, which waits for the server's store.</summary>
        internal const double HelloTimeoutS = 30;
        internal const double PingAfterHeartbeats = 1.2;
        internal const double DeadAfterHeartbeats = 2.5;
        /// <summary>After sleep, a connection that does not answer a ping for so long is dead.</summary>
        internal const double ProbeS = 5;
        /// <summary>
        /// More time than this between two ticks is sleep. Less is a game that loads a level;
        /// networks forget a connection after half a minute at the earliest.
        /// </summary>
        internal const double SleepS = 30;
        /// <summary>Of the time between two ticks so much counts as silence: the client did not read.</summary>
        private const double TickMaxS = 1;
        /// <summary>Keeps a server with a heartbeat of 0 from making its clients spin.</summary>
        private const double HeartbeatMinS = 0.01;
        /// <summary>Between two attempts that the application asks for.</summary>
        private const double HurryMinS = 1;

        /// <summary>Between two attempts while the platform says that there is no network.</summary>
        private const double AwayAttemptS = 60;

        private enum Phase { Idle, Token, Opening, Greeting, Open, Wait, Ended }

        private readonly string _url;
        private readonly StreamerOptions _options;
        private readonly ISocketFactory _sockets;
        private readonly TokenKeeper _tokens;
        private readonly IClock _clock;
        private readonly IStreamListener _listener;
        private readonly Reconnect _reconnect;
        private readonly UnreadNumber _unread;
        private readonly string _instance;
        private readonly List<string> _topics;
        private readonly List<Gap> _unfilled = new List<Gap>();

        private Phase _phase = Phase.Idle;
        private ISocket _socket;
        private string _sentToken;
        private bool _isTokenChecked;
        private string _player;
        private long? _marksVersion;
        private int? _shownUnread;
        private double _lastTickS;
        private double _lastUnixS;
        private double _silenceS;
        private double _heartbeatS;
        private bool _hasNetwork = true;
        private bool _isCommitDue;
        private bool _hasPinged;
        private bool _isProbing;
        private double _attemptAtS;
        private double _delayedUntilS;
        private double _lastAttemptS = double.MinValue;

        internal NotificationStream(
            string url, StreamerOptions options, ISocketFactory sockets, TokenKeeper tokens,
            IClock clock, IStreamListener listener)
        {
            _url = url;
            _options = options;
            _sockets = sockets;
            _tokens = tokens;
            _clock = clock;
            _listener = listener;
            _reconnect = new Reconnect(clock);
            _topics = new List<string>(options.Topics ?? new string[0]);
            _unread = new UnreadNumber(_topics);
            Seen = new SeenIds();
            // By this name a new connection replaces a dead one of the same stream. It names
            // the running client: one of a device or a player would not be unique.
            _instance = Guid.NewGuid().ToString("N");
        }

        internal string Cursor { get; private set; }

        internal int? Unread { get { return _unread.Value; } }

        internal SeenIds Seen { get; private set; }

        internal StreamEnd End { get; private set; }

        internal StreamerState State
        {
            get
            {
                switch (_phase)
                {
                    case Phase.Idle: return StreamerState.Stopped;
                    case Phase.Open: return StreamerState.Open;
                    case Phase.Wait: return StreamerState.Waiting;
                    case Phase.Ended: return StreamerState.Ended;
                    default: return StreamerState.Connecting;
                }
            }
        }

        internal void Start()
        {
            if (_phase != Phase.Idle && _phase != Phase.Ended) return;
            // What was refused before is not tried again, and another token may be.
            if (_phase == Phase.Ended) _tokens.Refuse(_sentToken);
            _reconnect.Begin();
            End = null;
            _lastTickS = _clock.NowS;
            _lastUnixS = _clock.UnixS;
            // Without it an application could hammer by stopping and starting.
            _attemptAtS = Math.Max(_lastTickS, Math.Max(_delayedUntilS, _lastAttemptS + HurryMinS));
            Enter(_attemptAtS > _lastTickS ? Phase.Wait : Phase.Token);
        }

        internal void Stop()
        {
            CommitWhatIsFilled();
            if (_phase == Phase.Idle) return;
            if (_socket != null) _socket.Close();
            _socket = null;
            Enter(Phase.Idle);
        }

        /// <summary>The app or the network is back: check the line, or reconnect soon.</summary>
        internal void Wake()
        {
            if (_phase == Phase.Open) Probe();
            else if (_phase == Phase.Wait)
            {
                double soonest = Math.Max(_delayedUntilS, Math.Max(_clock.NowS, _lastAttemptS + HurryMinS));
                _attemptAtS = Math.Min(_attemptAtS, soonest + Reconnect.FirstS * _clock.Random());
            }
        }

        /// <summary>
        /// The platform says whether there is a network. Without one there are no attempts,
        /// except one a minute: platforms are wrong at times.
        /// </summary>
        internal void SetNetwork(bool isReachable)
        {
            if (isReachable == _hasNetwork) return;
            _hasNetwork = isReachable;
            if (isReachable) Wake();
        }

        private bool MayAttempt(double nowS)
        {
            return nowS >= _attemptAtS && (_hasNetwork || nowS >= _lastAttemptS + AwayAttemptS);
        }

        internal void Tick()
        {
            CommitWhatIsFilled();
            double nowS = _clock.NowS;
            double unixS = _clock.UnixS;
            double passedS = nowS - _lastTickS;
            // The monotonic clock of some devices stands still while they sleep.
            bool hasSlept = Math.Max(passedS, unixS - _lastUnixS) > SleepS;
            _lastTickS = nowS;
            _lastUnixS = unixS;
            if (_phase == Phase.Wait && MayAttempt(nowS)) Enter(Phase.Token);
            if (_phase == Phase.Token) OpenSocket();
            if (_socket == null) return;
            if (hasSlept && _phase == Phase.Open) Probe();
            _silenceS += Math.Min(passedS, TickMaxS);
            TakeEvents();
            if (_socket == null) return;
            if (_phase == Phase.Open) KeepAlive();
            else if (_phase == Phase.Opening && _silenceS > OpenTimeoutS)
                Finish(new Ending(0, "cannot connect in time"), true);
            else if (_phase == Phase.Greeting && _silenceS > HelloTimeoutS)
                Finish(new Ending(0, "no hello in time"), true);
        }

        private void OpenSocket()
        {
            // Once per connection: the source may have no better one.
            if (!_isTokenChecked && _tokens.Current == _sentToken) _tokens.BeforeConnection();
            _isTokenChecked = true;
            _tokens.Want();
            if (_tokens.Current == null) return;
            SetPlayer();
            _lastAttemptS = _clock.NowS;
            _silenceS = 0;
            _hasPinged = _isProbing = false;
            Seen.BeginConnection();
            _sentToken = _tokens.Current;
            _socket = _sockets.Open(Address());
            Enter(Phase.Opening);
        }

        /// <summary>A cursor, ids and numbers belong to one player.</summary>
        private void SetPlayer()
        {
            string player = _options.Player ?? _tokens.Player ?? "";
            if (player == _player) return;
            _player = player;
            Cursor = _options.CursorStore.Load(CursorName) ?? _options.StartCursor;
            Seen.Clear();
            _unfilled.Clear();
            _isCommitDue = false;
            _unread.Forget();
            _shownUnread = null;
            _marksVersion = null;
            _listener.OnPlayer(player);
        }

        private string CursorName { get { return "streamer.cursor " + _url + " " + _player; } }

        /// <summary>Keep a cursor for the next run of the game.</summary>
        internal void Commit(string cursor)
        {
            if (_player != null) _options.CursorStore.Save(CursorName, cursor);
        }

        /// <summary>
        /// Whether the application is about to fill a gap, or has failed to. What a later
        /// run of the game would not know of is then not behind a stored cursor.
        /// </summary>
        internal bool HasUnfilledGap { get { return _unfilled.Count > 0; } }

        internal void BeginFill(Gap gap)
        {
            if (!_unfilled.Contains(gap)) _unfilled.Add(gap);
        }

        /// <summary>The gap is filled: store the cursor in the next tick, after the caller's work.</summary>
        internal void EndFill(Gap gap)
        {
            _isCommitDue |= _unfilled.Remove(gap) && _unfilled.Count == 0;
        }

        private void CommitWhatIsFilled()
        {
            if (!_isCommitDue) return;
            _isCommitDue = false;
            if (Cursor != null) _listener.OnCursor(Cursor);
        }

        private string Address()
        {
            var address = new StringBuilder(_url);
            // Some platforms hide the status of a refused handshake. In the stream all of
            // them see why.
            address.Append("?refusals=stream&instance=").Append(_instance);
            if (Cursor != null) address.Append("&cursor=").Append(Uri.EscapeDataString(Cursor));
            if (_options.Device != null)
                address.Append("&device=").Append(Uri.EscapeDataString(_options.Device));
            if (_topics.Count > 0)
                address.Append("&topics=").Append(Uri.EscapeDataString(string.Join(",", _topics)));
            return address.ToString();
        }

        private void TakeEvents()
        {
            ISocket socket = _socket;
            SocketEvent taken;
            // The application may stop the stream in any of its handlers.
            for (int i = 0; i < _options.MessagesPerTick && _socket == socket; i++)
            {
                if (!socket.TryTake(out taken)) return;
                _silenceS = 0;
                _hasPinged = _isProbing = false;
                switch (taken.Kind)
                {
                    case SocketEventKind.Opened:
                        // The first message, since browsers cannot set headers.
                        socket.Send(Message.Auth(_sentToken));
                        Enter(Phase.Greeting);
                        break;
                    case SocketEventKind.Text:
                        Take(taken.Text);
                        break;
                    default:
                        Finish(EndingOf(taken), false);
                        break;
                }
            }
        }

        private Ending EndingOf(SocketEvent closed)
        {
            if (closed.Status == 0) return new Ending(closed.Code, closed.Text ?? "");
            string status = closed.Status.ToString(CultureInfo.InvariantCulture);
            string detail = Problem.Read(closed.Text).Detail;
            return Ending.OfStatus(
                closed.Status, detail == null ? status : status + " " + detail,
                Reconnect.ParseRetryAfter(closed.RetryAfter, _clock.UnixS));
        }

        private void Take(string text)
        {
            Message message;
            try
            {
                message = Message.Decode(text);
                if (_phase == Phase.Greeting && message.Kind > MessageKind.Hello
                    && message.Kind != MessageKind.Ping && message.Kind != MessageKind.Bye)
                    throw new UnreadableException(message.Kind + " before hello");
            }
            catch (UnreadableException error)
            {
                // It may be a notification, which skipping it would lose.
                Finish(new Ending(0, "unreadable message: " + error.Message), false);
                return;
            }
            if (message.Kind == MessageKind.Bye)
            {
                Finish(new Ending(message.Code, message.Reason, message.DelayS), false);
                return;
            }
            if (message.Kind == MessageKind.Ping) _socket.Send(Message.Pong);
            _unread.Take(message);
            switch (message.Kind)
            {
                case MessageKind.Hello: TakeHello(message); break;
                case MessageKind.Notification: TakeNotification(message); break;
                case MessageKind.Replaced:
                    // It precedes a repeat, and is one itself.
                    if (!Seen.WasDeliveredBefore(message.Removal.ReplacedBy))
                        _listener.OnRemoval(message.Removal);
                    break;
                case MessageKind.Withdrawn:
                    _listener.OnRemoval(message.Removal);
                    MoveTo(message.Cursor);
                    break;
                case MessageKind.Gap:
                    message.Gap.From = Cursor;
                    // A connection that begins in the handlers continues behind the gap.
                    Cursor = message.Cursor;
                    _listener.OnGap(message.Gap);
                    if (Cursor == message.Cursor) MoveTo(Cursor);
                    break;
                case MessageKind.Read:
                    _marksVersion = message.MarksVersion ?? _marksVersion;
                    _listener.OnRead(message.Read);
                    break;
                case MessageKind.Cursor:
                    MoveTo(message.Cursor);
                    break;
            }
            ShowUnread();
        }

        private void TakeHello(Message message)
        {
            if (_phase != Phase.Greeting) return;
            _reconnect.MarkOpen();
            _heartbeatS = Math.Max(message.HeartbeatS, HeartbeatMinS);
            // A stream from now on has a cursor from here on, so that it loses nothing while
            // it is disconnected. A cursor of its own is better.
            if (Cursor == null) MoveTo(message.Cursor);
            bool hasChanged = _marksVersion.HasValue && message.MarksVersion.HasValue
                && _marksVersion != message.MarksVersion;
            _marksVersion = message.MarksVersion ?? _marksVersion;
            Enter(Phase.Open);
            // Marks changed meanwhile. The server does not say which.
            if (hasChanged) _listener.OnRead(new ReadChange { IsRead = true });
        }

        private void TakeNotification(Message message)
        {
            if (!Seen.IsRepeat(message.Notification.Id))
            {
                _reconnect.MarkProved();
                _listener.OnNotification(message.Notification);
            }
            MoveTo(message.Cursor);
        }

        private void MoveTo(string cursor)
        {
            if (cursor == null) return;
            Cursor = cursor;
            _listener.OnCursor(cursor);
        }

        private void ShowUnread()
        {
            if (!Unread.HasValue || Unread == _shownUnread) return;
            _shownUnread = Unread;
            _listener.OnUnread(Unread.Value);
        }

        private void Probe()
        {
            // Another one must not put off the end of a line that does not answer this one.
            if (_isProbing) return;
            _socket.Send(Message.Ping);
            _hasPinged = _isProbing = true;
            _silenceS = 0;
        }

        private void KeepAlive()
        {
            bool isDead = _isProbing
                ? _silenceS > Math.Min(ProbeS, DeadAfterHeartbeats * _heartbeatS)
                : _silenceS > DeadAfterHeartbeats * _heartbeatS;
            if (isDead)
            {
                Finish(new Ending(0, "silent"), true);
                return;
            }
            if (!_hasPinged && _silenceS > PingAfterHeartbeats * _heartbeatS)
            {
                _socket.Send(Message.Ping);
                _hasPinged = true;
            }
            if (_tokens.IsRenewalDue) _tokens.Renew();
            if (_tokens.Current == null || _tokens.Current == _sentToken) return;
            _sentToken = _tokens.Current;
            if (_options.Player == null && (_tokens.Player ?? "") != _player)
                Finish(new Ending(0, "the token is of another player"), false);
            else _socket.Send(Message.Auth(_sentToken));
        }

        private void Finish(Ending ending, bool isDead)
        {
            ISocket socket = _socket;
            _socket = null;
            if (isDead) socket.Abort();
            else socket.Close();
            NextStep next = _reconnect.After(ending, _tokens.CanRenew);
            if (next == NextStep.NewToken)
            {
                _tokens.Refuse(_sentToken);
                Enter(Phase.Token);
            }
            else if (next == NextStep.Wait)
            {
                _delayedUntilS = _clock.NowS + _reconnect.DelayS;
                _attemptAtS = _clock.NowS + _reconnect.WaitS;
                Enter(Phase.Wait);
            }
            else
            {
                End = new StreamEnd { Code = ending.Code, Detail = ending.Reason };
                Enter(Phase.Ended);
                _listener.OnEnded(End);
            }
        }

        private void Enter(Phase phase)
        {
            StreamerState before = State;
            _phase = phase;
            _isTokenChecked = false;
            if (State != before) _listener.OnState(State);
        }
    }
}
