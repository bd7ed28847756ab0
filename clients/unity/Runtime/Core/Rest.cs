using System;
using System.Collections.Generic;
using System.Threading.Tasks;

namespace Streamer
{
    /// <summary>What a response of the server says about an error.</summary>
    internal struct Problem
    {
        internal string Word;
        internal string Detail;
        internal string Limit;

        internal static Problem Read(string body)
        {
            var read = new Problem();
            try
            {
                JsonValue value = JsonValue.Parse(body ?? "");
                string type = value["type"].AsString("");
                read.Word = type.StartsWith("about:", StringComparison.Ordinal) ? type.Substring(6) : null;
                read.Detail = value["detail"].AsString() ?? value["title"].AsString();
                read.Limit = value["limit"].AsString();
            }
            catch (JsonException)
            {
                // The page of a proxy.
            }
            return read;
        }
    }

    /// <summary>
    /// HTTP requests with a token, repeated until there is a usable response. All of them
    /// are safe to repeat. Polled, as everything here.
    /// </summary>
    internal sealed class Rest
    {
        internal const int AttemptsMax = 6;
        internal const double RetryS = 60;
        internal const double AttemptS = 15;

        private readonly string _baseUrl;
        private readonly IHttp _http;
        private readonly TokenKeeper _tokens;
        private readonly IClock _clock;
        private readonly List<Call> _calls = new List<Call>();
        private bool _isClosed;

        internal Rest(string baseUrl, IHttp http, TokenKeeper tokens, IClock clock)
        {
            _baseUrl = baseUrl;
            _http = http;
            _tokens = tokens;
            _clock = clock;
        }

        /// <summary>
        /// Send a request; the task ends during a later <see cref="Tick"/>, or with a
        /// <see cref="StreamerException"/>.
        /// </summary>
        internal Task<JsonValue> SendAsync(
            string method, string path, string body = null, int attemptsMax = AttemptsMax)
        {
            if (_isClosed)
            {
                var failed = new TaskCompletionSource<JsonValue>();
                failed.SetException(new StreamerException("the client is closed"));
                return failed.Task;
            }
            var call = new Call
            {
                Request = new HttpRequest { Method = method, Url = _baseUrl + path, Body = body },
                StartedS = _clock.NowS,
                NotBeforeS = double.MinValue,
                AttemptsMax = attemptsMax
            };
            _calls.Add(call);
            return call.Result.Task;
        }

        internal void Tick()
        {
            // What follows a response may begin further requests, or close the client.
            for (int i = 0; i < _calls.Count; i++)
            {
                if (!_calls[i].IsDone) Advance(_calls[i]);
            }
            for (int i = _calls.Count - 1; i >= 0; i--)
            {
                if (_calls[i].IsDone) _calls.RemoveAt(i);
            }
        }

        /// <summary>Drop all requests, and take no more.</summary>
        internal void Close()
        {
            _isClosed = true;
            Abort("the client is closed");
        }

        /// <summary>Drop all requests.</summary>
        internal void Abort(string problem)
        {
            var calls = new List<Call>(_calls);
            _calls.Clear();
            foreach (Call call in calls)
            {
                if (call.Exchange != null) call.Exchange.Abort();
                call.Fail(new StreamerException(problem));
            }
        }

        private void Advance(Call call)
        {
            double nowS = _clock.NowS;
            if (call.Exchange != null)
            {
                if (call.Exchange.IsDone) Take(call);
                else if (nowS - call.AttemptStartedS > AttemptS)
                {
                    call.Exchange.Abort();
                    call.Exchange = null;
                    Retry(call, new StreamerException("no response in time"), null);
                }
            }
            else if (nowS >= call.NotBeforeS)
            {
                _tokens.Want();
                if (_tokens.Current != null)
                {
                    call.Request.Token = _tokens.Current;
                    call.AttemptStartedS = nowS;
                    call.Exchange = _http.Start(call.Request);
                }
                else if (nowS - call.StartedS > RetryS)
                    call.Fail(new StreamerException("no token in time"));
            }
        }

        private void Take(Call call)
        {
            HttpResponse response = call.Exchange.Response;
            string lost = call.Exchange.Problem;
            call.Exchange = null;
            if (response == null)
            {
                Retry(call, new StreamerException("no response: " + lost), null);
                return;
            }
            int status = response.Status;
            if (status >= 200 && status < 300)
            {
                Succeed(call, response.Body);
                return;
            }
            Problem problem = Problem.Read(response.Body);
            var error = new StreamerException(
                status + " " + (problem.Detail ?? "without an explanation"), status, problem.Word);
            // A 409 with Retry-After is a limit that passes.
            bool isTemporary = status == 408 || status == 429 || status == 502 || status == 503 || status == 504
                || (status == 409 && response.RetryAfter != null);
            bool isPermanentLimit =
                problem.Limit == "topics_per_player" || problem.Limit == "mutes_per_player";
            if (status == 401 && !call.IsRenewed && _tokens.CanRenew)
            {
                call.IsRenewed = true;
                _tokens.Refuse(call.Request.Token);
            }
            else if (isTemporary && !isPermanentLimit) Retry(call, error, response.RetryAfter);
            else call.Fail(error);
        }

        private static void Succeed(Call call, string body)
        {
            JsonValue value = JsonValue.Missing;
            try
            {
                if (!string.IsNullOrEmpty(body)) value = JsonValue.Parse(body);
            }
            catch (JsonException error)
            {
                // The page of a captive portal, for example.
                call.Fail(new StreamerException("unreadable response: " + error.Message, 200));
                return;
            }
            call.IsDone = true;
            call.Result.TrySetResult(value);
        }

        private void Retry(Call call, StreamerException error, string retryAfter)
        {
            error.IsTemporary = true;
            error.RetryAfterS = Reconnect.ParseRetryAfter(retryAfter, _clock.UnixS) ?? 0;
            call.NotBeforeS = _clock.NowS + error.RetryAfterS
                + Reconnect.FullJitterS(call.Attempts++, _clock.Random());
            bool isTooLate = call.NotBeforeS - call.StartedS > RetryS;
            if (isTooLate || call.Attempts >= call.AttemptsMax) call.Fail(error);
        }

        private sealed class Call
        {
            internal readonly TaskCompletionSource<JsonValue> Result = new TaskCompletionSource<JsonValue>();
            internal HttpRequest Request;
            internal IHttpExchange Exchange;
            internal double StartedS;
            internal double AttemptStartedS;
            internal double NotBeforeS;
            internal int Attempts;
            internal int AttemptsMax;
            internal bool IsRenewed;
            internal bool IsDone;

            internal void Fail(StreamerException error)
            {
                IsDone = true;
                Result.TrySetException(error);
            }
        }
    }
}
