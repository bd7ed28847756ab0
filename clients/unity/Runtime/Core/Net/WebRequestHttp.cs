#if !UNITY_WEBGL || UNITY_EDITOR
using System;
using System.IO;
using System.Net;
using System.Text;
using System.Threading;

namespace Streamer.Net
{
    /// <summary>
    /// HTTP for programs without Unity, such as tests and bots. Within Unity the engine's own
    /// requests are used.
    /// </summary>
    public sealed class WebRequestHttp : IHttp
    {
        public IHttpExchange Start(HttpRequest request) { return new Exchange(request); }

        private sealed class Exchange : IHttpExchange
        {
            private readonly HttpRequest _request;
            private HttpWebRequest _web;
            private volatile bool _isDone;

            internal Exchange(HttpRequest request)
            {
                // Later attempts of the same request change it.
                _request = new HttpRequest
                {
                    Method = request.Method, Url = request.Url, Body = request.Body, Token = request.Token
                };
                ThreadPool.QueueUserWorkItem(Run);
            }

            public bool IsDone { get { return _isDone; } }

            public HttpResponse Response { get; private set; }

            public string Problem { get; private set; }

            public void Abort()
            {
                HttpWebRequest web = _web;
                if (web != null) web.Abort();
            }

            private void Run(object unused)
            {
                try
                {
                    Response = Send();
                }
                catch (Exception error)
                {
                    Problem = error.Message;
                }
                _isDone = true;
            }

            private HttpResponse Send()
            {
                var web = (HttpWebRequest)WebRequest.Create(_request.Url);
                _web = web;
                web.Method = _request.Method;
                web.AllowAutoRedirect = false;
                web.Timeout = web.ReadWriteTimeout = (int)(Rest.AttemptS * 1000);
                web.UserAgent = "streamer-unity";
                web.Headers["Authorization"] = "Bearer " + _request.Token;
                if (_request.Body != null)
                {
                    byte[] body = Encoding.UTF8.GetBytes(_request.Body);
                    web.ContentType = "application/json";
                    web.ContentLength = body.Length;
                    using (Stream to = web.GetRequestStream()) to.Write(body, 0, body.Length);
                }
                try
                {
                    using (var response = (HttpWebResponse)web.GetResponse()) return Read(response);
                }
                catch (WebException error)
                {
                    // A status of 400 and above is an exception here.
                    var response = error.Response as HttpWebResponse;
                    if (response == null) throw;
                    using (response) return Read(response);
                }
            }

            private static HttpResponse Read(HttpWebResponse response)
            {
                using (var reader = new StreamReader(response.GetResponseStream(), Encoding.UTF8))
                {
                    return new HttpResponse
                    {
                        Status = (int)response.StatusCode,
                        Body = reader.ReadToEnd(),
                        RetryAfter = response.Headers["Retry-After"]
                    };
                }
            }
        }
    }
}
#endif
