#if !UNITY_WEBGL || UNITY_EDITOR
using System;
using System.Collections.Generic;
using System.IO;
using System.Security.Cryptography;
using System.Text;

namespace Streamer.Net
{
    /// <summary>The peer does not follow RFC 6455, or sends too much.</summary>
    internal sealed class WebSocketException : Exception
    {
        internal WebSocketException(string message) : base(message) { }
    }

    /// <summary>A handshake that was refused with an HTTP status.</summary>
    internal sealed class RefusedException : Exception
    {
        internal readonly int Status;
        internal readonly string Body;
        internal readonly string RetryAfter;

        internal RefusedException(int status, string body, string retryAfter) : base("refused: " + status)
        {
            Status = status;
            Body = body;
            RetryAfter = retryAfter;
        }
    }

    /// <summary>
    /// The client's side of RFC 6455 on a byte stream: handshake, frames, messages. Blocking;
    /// knows nothing of threads. No extensions and no subprotocols, which the protocol does
    /// not use.
    /// </summary>
    internal sealed class WebSocketFrames
    {
        internal const int Text = 1;
        internal const int Binary = 2;
        internal const int Close = 8;
        internal const int Ping = 9;
        internal const int Pong = 10;

        /// <summary>Above any notification; limits the memory that a hostile server can use.</summary>
        internal const int MessageBytesMax = 4 * 1024 * 1024;
        private const int HeadBytesMax = 64 * 1024;
        private const int BodyBytesMax = 64 * 1024;

        private static readonly Encoding Utf8 = new UTF8Encoding(false, true);

        private readonly Stream _stream;
        private readonly byte[] _buffer = new byte[16 * 1024];
        private int _start;
        private int _end;

        internal WebSocketFrames(Stream stream) { _stream = stream; }

        /// <summary>
        /// Upgrade the connection.
        /// </summary>
        /// <exception cref="RefusedException">The server answered with another status.</exception>
        internal void Handshake(Uri url, RandomNumberGenerator random)
        {
            var nonce = new byte[16];
            random.GetBytes(nonce);
            string key = Convert.ToBase64String(nonce);
            string request = "GET " + url.PathAndQuery + " HTTP/1.1\r\n"
                + "Host: " + url.Authority + "\r\n"
                + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                + "Sec-WebSocket-Key: " + key + "\r\n"
                + "User-Agent: streamer-unity\r\n\r\n";
            byte[] bytes = Encoding.ASCII.GetBytes(request);
            _stream.Write(bytes, 0, bytes.Length);
            _stream.Flush();
            Dictionary<string, string> headers;
            int status = ReadHead(out headers);
            // Another protocol than asked for is no status of interest: 100, 103.
            while (status >= 100 && status < 200 && status != 101) status = ReadHead(out headers);
            string header;
            if (status != 101)
            {
                string body = ReadBody(headers);
                headers.TryGetValue("retry-after", out header);
                throw new RefusedException(status, body, header);
            }
            headers.TryGetValue("sec-websocket-accept", out header);
            if (header != AcceptOf(key)) throw new WebSocketException("a wrong Sec-WebSocket-Accept");
        }

        internal static string AcceptOf(string key)
        {
            using (SHA1 sha1 = SHA1.Create())
            {
                byte[] hash = sha1.ComputeHash(
                    Encoding.ASCII.GetBytes(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
                return Convert.ToBase64String(hash);
            }
        }

        /// <summary>
        /// Return the next message or control frame; control frames may be between the frames
        /// of a message.
        /// </summary>
        /// <param name="onControl">Gets control frames that are within a message.</param>
        internal int Read(out byte[] payload, Action<int, byte[]> onControl)
        {
            int messageCode = 0;
            MemoryStream message = null;
            while (true)
            {
                int first = ReadByte();
                int second = ReadByte();
                bool isLast = (first & 0x80) != 0;
                int code = first & 0x0f;
                if ((first & 0x70) != 0) throw new WebSocketException("an extension that was not agreed on");
                if ((code > Binary && code < Close) || code > Pong)
                    throw new WebSocketException("a frame of an unknown kind");
                if ((second & 0x80) != 0) throw new WebSocketException("a masked frame of the server");
                long length = second & 0x7f;
                if (length == 126) length = ReadNumber(2);
                else if (length == 127) length = ReadNumber(8);
                if (code >= 8)
                {
                    if (length > 125 || !isLast) throw new WebSocketException("a wrong control frame");
                    payload = ReadBytes((int)length);
                    if (message == null) return code;
                    onControl(code, payload);
                    if (code == Close) return code;
                    continue;
                }
                if ((code == 0) != (message != null)) throw new WebSocketException("a frame out of order");
                long had = message == null ? 0 : message.Length;
                if (length < 0 || had + length > MessageBytesMax)
                    throw new WebSocketException("a message of more than " + MessageBytesMax + " bytes");
                byte[] part = ReadBytes((int)length);
                if (code != 0 && isLast)
                {
                    payload = part;
                    return code;
                }
                if (message == null)
                {
                    messageCode = code;
                    message = new MemoryStream();
                }
                message.Write(part, 0, part.Length);
                if (!isLast) continue;
                payload = message.ToArray();
                return messageCode;
            }
        }

        /// <exception cref="WebSocketException">It is not UTF-8.</exception>
        internal static string Decode(byte[] payload, int from = 0)
        {
            try
            {
                return Utf8.GetString(payload, from, payload.Length - from);
            }
            catch (ArgumentException)
            {
                throw new WebSocketException("a text that is not UTF-8");
            }
        }

        /// <summary>Write one frame, masked as those of clients are.</summary>
        internal void Write(int code, byte[] payload, RandomNumberGenerator random)
        {
            int size = payload.Length;
            int lengthBytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
            var frame = new byte[2 + lengthBytes + 4 + size];
            frame[0] = (byte)(0x80 | code);
            frame[1] = (byte)(0x80 | (lengthBytes == 0 ? size : lengthBytes == 2 ? 126 : 127));
            for (int i = 0; i < lengthBytes; i++)
                frame[2 + i] = (byte)((long)size >> (8 * (lengthBytes - 1 - i)));
            var mask = new byte[4];
            random.GetBytes(mask);
            int at = 2 + lengthBytes;
            Buffer.BlockCopy(mask, 0, frame, at, 4);
            at += 4;
            for (int i = 0; i < size; i++) frame[at + i] = (byte)(payload[i] ^ mask[i & 3]);
            _stream.Write(frame, 0, frame.Length);
            _stream.Flush();
        }

        private int ReadHead(out Dictionary<string, string> headers)
        {
            headers = new Dictionary<string, string>();
            int room = HeadBytesMax;
            string[] words = ReadLine(ref room).Split(' ');
            int status;
            if (words.Length < 2 || !words[0].StartsWith("HTTP/1.", StringComparison.Ordinal)
                || !int.TryParse(words[1], out status))
                throw new WebSocketException("the peer does not speak HTTP/1.1");
            while (true)
            {
                string line = ReadLine(ref room);
                if (line.Length == 0) return status;
                int colon = line.IndexOf(':');
                if (colon > 0)
                    headers[line.Substring(0, colon).Trim().ToLowerInvariant()] = line.Substring(colon + 1).Trim();
            }
        }

        /// <summary>Return the beginning of a body, "" if its length is not stated.</summary>
        private string ReadBody(Dictionary<string, string> headers)
        {
            string header;
            int length;
            if (!headers.TryGetValue("content-length", out header) || !int.TryParse(header, out length))
                return "";
            try
            {
                return Encoding.UTF8.GetString(ReadBytes(Math.Min(Math.Max(length, 0), BodyBytesMax)));
            }
            catch (IOException)
            {
                return "";
            }
        }

        private string ReadLine(ref int room)
        {
            var line = new StringBuilder();
            while (true)
            {
                if (--room < 0) throw new WebSocketException("the response has too many headers");
                int c = ReadByte();
                if (c == '\n') return line.ToString().TrimEnd('\r');
                line.Append((char)c);
            }
        }

        private long ReadNumber(int bytes)
        {
            long number = 0;
            for (int i = 0; i < bytes; i++) number = (number << 8) | (uint)ReadByte();
            return number;
        }

        private int ReadByte()
        {
            if (_start == _end) Fill();
            return _buffer[_start++];
        }

        private byte[] ReadBytes(int count)
        {
            var bytes = new byte[count];
            int at = 0;
            while (at < count)
            {
                if (_start == _end) Fill();
                int part = Math.Min(count - at, _end - _start);
                Buffer.BlockCopy(_buffer, _start, bytes, at, part);
                at += part;
                _start += part;
            }
            return bytes;
        }

        private void Fill()
        {
            int count = _stream.Read(_buffer, 0, _buffer.Length);
            if (count <= 0) throw new EndOfStreamException("the connection was lost");
            _start = 0;
            _end = count;
        }
    }
}
#endif
