using System;
using System.Text;
using System.Threading.Tasks;

namespace Streamer
{
    /// <summary>
    /// Returns a player token of your backend. Called before a connection if the last token
    /// ends within a minute, when the server refuses a token, and on an open stream before
    /// the token ends. A failure is repeated with back-off.
    /// </summary>
    public delegate Task<string> TokenSource();

    /// <summary>
    /// The token of a client, when it ends, and how to get another one. Knows nothing of
    /// HTTP or WebSocket. All of it happens in <see cref="Tick"/>.
    /// </summary>
    internal sealed class TokenKeeper
    {
        /// <summary>A token of the source that is good for so long is used without asking again.</summary>
        internal const double FreshS = 60;
        /// <summary>A source that does not answer for so long has failed.</summary>
        internal const double SourceTimeoutS = 30;
        /// <summary>Part of a token's life after which it is renewed; random between the two.</summary>
        private const double RenewFrom = 0.75;
        private const double RenewTo = 0.9;
        /// <summary>Keeps a source of very short-lived tokens from being called without a pause.</summary>
        private const double RenewMinS = 1;
        /// <summary>The longest wait between two calls of a source that keeps failing.</summary>
        private const double FailureMaxS = 600;

        private readonly TokenSource _source;
        private readonly IClock _clock;
        private readonly Action<Exception> _onFailure;
        private Task<string> _task;
        private double _taskStartedS;
        private double _notBeforeS = double.MinValue;
        private double _renewAtUnixS = double.MaxValue;
        private double _endsAtUnixS;
        private int _failures;

        internal TokenKeeper(
            string token, TokenSource source, IClock clock, Action<Exception> onFailure)
        {
            if (string.IsNullOrEmpty(token) && source == null)
                throw new ArgumentException("a client needs a Token or a TokenSource");
            _source = source;
            _clock = clock;
            _onFailure = onFailure;
            if (!string.IsNullOrEmpty(token)) Set(token);
        }

        internal bool CanRenew { get { return _source != null; } }

        /// <summary>The token; null while there is none, see <see cref="Want"/>.</summary>
        internal string Current { get; private set; }

        /// <summary>The player that the token names, null if that cannot be read.</summary>
        internal string Player { get; private set; }

        /// <summary>Ask the source for a token if there is none. May be called at any rate.</summary>
        internal void Want()
        {
            if (Current == null) Fetch();
        }

        /// <summary>A server refused this token: forget it, if it can be replaced.</summary>
        internal void Refuse(string token)
        {
            if (Current == token && CanRenew) Current = null;
        }

        /// <summary>Before a connection: forget a token that ends soon.</summary>
        internal void BeforeConnection()
        {
            // When one that cannot be read ends, the server says so.
            if (CanRenew && _endsAtUnixS > 0 && _endsAtUnixS - _clock.UnixS < FreshS) Current = null;
        }

        /// <summary>Whether it is time to renew the token of an open stream.</summary>
        internal bool IsRenewalDue
        {
            get { return CanRenew && Current != null && _clock.UnixS >= _renewAtUnixS; }
        }

        /// <summary>Get another token and keep the current one until then.</summary>
        internal void Renew() { Fetch(); }

        /// <summary>The network or the app is back: do not wait for a failed source.</summary>
        internal void Hurry()
        {
            _notBeforeS = Math.Min(_notBeforeS, _clock.NowS + Reconnect.FirstS);
        }

        internal void Tick()
        {
            if (_task == null) return;
            if (_task.IsCompleted)
            {
                Task<string> task = _task;
                _task = null;
                if (task.IsFaulted) Fail(task.Exception.InnerException ?? task.Exception);
                else if (task.IsCanceled) Fail(new OperationCanceledException("the token source was cancelled"));
                else if (string.IsNullOrEmpty(task.Result)) Fail(new InvalidOperationException("the token source returned no token"));
                else
                {
                    _failures = 0;
                    Set(task.Result);
                    // A renewal must not follow another one at once.
                    _notBeforeS = _clock.NowS + RenewMinS * (0.5 + 0.5 * _clock.Random());
                }
            }
            else if (_clock.NowS - _taskStartedS > SourceTimeoutS)
            {
                _task = null;
                Fail(new TimeoutException("the token source did not answer"));
            }
        }

        private void Fetch()
        {
            if (_task != null || _source == null || _clock.NowS < _notBeforeS) return;
            _taskStartedS = _clock.NowS;
            try
            {
                _task = _source();
                if (_task == null) throw new InvalidOperationException("the token source returned null");
            }
            catch (Exception error)
            {
                Fail(error);
                return;
            }
            Tick();
        }

        private void Fail(Exception error)
        {
            _notBeforeS = _clock.NowS + RenewMinS
                + Reconnect.FullJitterS(_failures++, _clock.Random(), FailureMaxS);
            _onFailure(error);
        }

        private void Set(string token)
        {
            Current = token;
            JsonValue claims = ClaimsOf(token);
            Player = claims["sub"].AsString();
            double nowS = _clock.UnixS;
            double leftS = claims["exp"].AsDouble() - nowS;
            double lifeS = claims["exp"].AsDouble() - claims["iat"].AsDouble();
            // The clock of a player's device may be hours ahead of the server's. A new token
            // is then as good as its whole life.
            if (leftS <= 0 && _source != null && !claims["iat"].IsMissing) leftS = lifeS;
            if (leftS <= 0)
            {
                _endsAtUnixS = 0;
                _renewAtUnixS = double.MaxValue;
                return;
            }
            _endsAtUnixS = nowS + leftS;
            double part = RenewFrom + (RenewTo - RenewFrom) * _clock.Random();
            _renewAtUnixS = nowS + Math.Max(RenewMinS, leftS * part);
        }

        /// <summary>
        /// Return the claims of a JSON Web Token, Missing for other tokens. They are a hint:
        /// when to renew, and whether the player is another one.
        /// </summary>
        internal static JsonValue ClaimsOf(string token)
        {
            string[] parts = token.Split('.');
            if (parts.Length != 3) return JsonValue.Missing;
            string text = parts[1].Replace('-', '+').Replace('_', '/');
            try
            {
                byte[] bytes = Convert.FromBase64String(text + new string('=', (4 - text.Length % 4) % 4));
                return JsonValue.Parse(Encoding.UTF8.GetString(bytes));
            }
            catch (FormatException) { return JsonValue.Missing; }
            catch (JsonException) { return JsonValue.Missing; }
        }
    }
}
