using System;
using System.Globalization;

namespace Streamer
{
    /// <summary>Time and randomness, so that tests control both.</summary>
    public interface IClock
    {
        /// <summary>Monotonic seconds.</summary>
        double NowS { get; }
        /// <summary>Unix time in seconds.</summary>
        double UnixS { get; }
        /// <summary>Return a number in [0, 1).</summary>
        double Random();
    }

    /// <summary>How a connection ended, or why there was none.</summary>
    internal struct Ending
    {
        internal const int TokenInvalid = 4200;
        internal const int Forbidden = 4201;
        internal const int Protocol = 4203;
        internal const int TooManyListeners = 4101;
        internal const int NodeFull = 4102;

        /// <summary>A close code; 0 without one.</summary>
        internal readonly int Code;
        internal readonly string Reason;
        /// <summary>The delay that the server asks for; null without one.</summary>
        internal readonly double? DelayS;

        internal Ending(int code, string reason, double? delayS = null)
        {
            Code = code;
            Reason = reason;
            DelayS = delayS;
        }

        /// <summary>Return the ending that a handshake refused with an HTTP status is.</summary>
        internal static Ending OfStatus(int status, string reason, double? retryAfterS)
        {
            int code;
            if (status == 401) code = TokenInvalid;
            else if (status == 403) code = Forbidden;
            else if (status == 409) code = TooManyListeners;
            else if (status == 400 || status == 426) code = Protocol;
            // A proxy on the way says "later" in many ways, and a captive portal answers
            // with a page of its own. All of that goes away.
            else code = NodeFull;
            return new Ending(code, reason, retryAfterS);
        }
    }

    internal enum NextStep { Wait, NewToken, Stop }

    /// <summary>
    /// Whether and when to reconnect: the decisions of one stream over all its connections.
    /// Decides by the range of a close code. The wait has full jitter: it is random between
    /// 0 and a limit that doubles, so that clients that lost their connections together do
    /// not reconnect together. Only a connection that proved itself starts it again.
    /// </summary>
    internal sealed class Reconnect
    {
        internal const double FirstS = 0.5;
        internal const double MaxS = 20;
        /// <summary>A connection that lasted so long, or delivered something new, proved itself.</summary>
        internal const double StableS = 10;
        /// <summary>A longer delay is regarded as a mistake: the client would look dead.</summary>
        internal const double DelayMaxS = 300;

        private readonly IClock _clock;
        private int _attempt;
        private bool _renewed;
        private double _openedAtS = -1;

        internal Reconnect(IClock clock) { _clock = clock; }

        /// <summary>Seconds to wait, after <see cref="NextStep.Wait"/>.</summary>
        internal double WaitS { get; private set; }

        /// <summary>Seconds of <see cref="WaitS"/> that the server asked for.</summary>
        internal double DelayS { get; private set; }

        /// <summary>The application starts the stream: a refused token is replaced once again.</summary>
        internal void Begin() { _renewed = false; }

        internal void MarkOpen() { _openedAtS = _clock.NowS; }

        internal void MarkProved()
        {
            _attempt = 0;
            _renewed = false;
        }

        /// <summary>Decide what follows an ending. Call once per connection or attempt.</summary>
        internal NextStep After(Ending ending, bool canRenew)
        {
            bool wasStable = _openedAtS >= 0 && _clock.NowS - _openedAtS >= StableS;
            _openedAtS = -1;
            if (wasStable) MarkProved();
            if (ending.Code == Ending.TokenInvalid)
            {
                // Once in a row: a source whose new token is refused as well would be
                // called in an endless loop without a wait.
                if (_renewed || !canRenew) return NextStep.Stop;
                _renewed = true;
                return NextStep.NewToken;
            }
            _renewed = false;
            if (ending.Code >= 4200 && ending.Code <= 4299) return NextStep.Stop;
            bool hasDelay = ending.DelayS.HasValue && ending.Code >= 4100 && ending.Code <= 4199;
            DelayS = hasDelay ? Math.Min(Math.Max(ending.DelayS.Value, 0), DelayMaxS) : 0;
            WaitS = DelayS + FullJitterS(_attempt++, _clock.Random());
            return NextStep.Wait;
        }

        /// <summary>Return the wait before a retry, from 0; the fraction is in [0, 1).</summary>
        internal static double FullJitterS(int attempt, double fraction, double maxS = MaxS)
        {
            return fraction * Math.Min(maxS, FirstS * Math.Pow(2, Math.Min(attempt, 16)));
        }

        /// <summary>Return the seconds that a Retry-After asks for, null if it cannot be read.</summary>
        internal static double? ParseRetryAfter(string value, double unixS)
        {
            if (string.IsNullOrEmpty(value)) return null;
            double seconds;
            bool isNumber = double.TryParse(
                value.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out seconds);
            if (!isNumber)
            {
                DateTime date;
                bool isDate = DateTime.TryParseExact(
                    value.Trim(), "r", CultureInfo.InvariantCulture,
                    DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out date);
                if (!isDate) return null;
                seconds = (date - SystemClock.Epoch).TotalSeconds - unixS;
            }
            return Math.Min(Math.Max(seconds, 0), DelayMaxS);
        }
    }

    /// <summary>The clock of the machine.</summary>
    public sealed class SystemClock : IClock
    {
        internal static readonly DateTime Epoch = new DateTime(1970, 1, 1, 0, 0, 0, DateTimeKind.Utc);

        private readonly System.Diagnostics.Stopwatch _watch = System.Diagnostics.Stopwatch.StartNew();
        // The default seed is the time: devices that start together must not share it.
        private readonly Random _random = new Random(Guid.NewGuid().GetHashCode());

        public double NowS { get { return _watch.Elapsed.TotalSeconds; } }

        public double UnixS { get { return (DateTime.UtcNow - Epoch).TotalSeconds; } }

        public double Random() { return _random.NextDouble(); }
    }
}
