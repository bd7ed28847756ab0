using System.Text;
using UnityEngine.Networking;

namespace Streamer.Unity
{
    /// <summary>Requests by UnityWebRequest, which all platforms have.</summary>
    public sealed class UnityHttp : IHttp
    {
        private const int TimeoutS = 15;

        public IHttpExchange Start(HttpRequest request) { return new Exchange(request); }

        private sealed class Exchange : IHttpExchange
        {
            private UnityWebRequest _web;
            private readonly UnityWebRequestAsyncOperation _operation;

            internal Exchange(HttpRequest request)
            {
                _web = new UnityWebRequest(request.Url, request.Method)
                {
                    downloadHandler = new DownloadHandlerBuffer(),
                    timeout = TimeoutS,
                    redirectLimit = 0
                };
                if (request.Body != null)
                {
                    _web.uploadHandler = new UploadHandlerRaw(Encoding.UTF8.GetBytes(request.Body))
                    {
                        contentType = "application/json"
                    };
                }
                _web.SetRequestHeader("Authorization", "Bearer " + request.Token);
                _operation = _web.SendWebRequest();
            }

            public HttpResponse Response { get; private set; }

            public string Problem { get; private set; }

            public bool IsDone
            {
                get
                {
                    if (_web == null) return true;
                    if (!_operation.isDone) return false;
                    // A status of 400 and above is an error of Unity's, and a response here.
                    if (_web.responseCode > 0)
                    {
                        Response = new HttpResponse
                        {
                            Status = (int)_web.responseCode,
                            Body = _web.downloadHandler.text,
                            RetryAfter = _web.GetResponseHeader("Retry-After")
                        };
                    }
                    else Problem = _web.error ?? "no response";
                    Dispose();
                    return true;
                }
            }

            public void Abort()
            {
                if (_web == null) return;
                _web.Abort();
                Problem = "aborted";
                Dispose();
            }

            private void Dispose()
            {
                _web.Dispose();
                _web = null;
            }
        }
    }
}
