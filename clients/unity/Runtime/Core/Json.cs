using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Streamer
{
    /// <summary>What a <see cref="JsonValue"/> is.</summary>
    public enum JsonKind
    {
        /// <summary>There is no value: a member that an object does not have.</summary>
        Missing,
        Null,
        Bool,
        Number,
        String,
        Array,
        Object
    }

    /// <summary>The text is not JSON (RFC 8259), or is nested too deeply.</summary>
    public sealed class JsonException : Exception
    {
        public JsonException(string message) : base(message) { }
    }

    /// <summary>
    /// A JSON value, immutable. Numbers keep their text, so that no digit of a 64-bit
    /// integer is lost. A missing member is a value of its own kind: lookups never throw
    /// and never return null, so <c>data["a"]["b"].AsString("")</c> is safe.
    /// </summary>
    public sealed class JsonValue
    {
        /// <summary>Levels of arrays and objects that can be read.</summary>
        public const int DepthMax = 512;

        // Before the values below, which have them.
        private static readonly List<JsonValue> NoItems = new List<JsonValue>();
        private static readonly List<string> NoKeys = new List<string>();

        public static readonly JsonValue Missing = new JsonValue(JsonKind.Missing, null);
        public static readonly JsonValue Null = new JsonValue(JsonKind.Null, null);
        public static readonly JsonValue True = new JsonValue(JsonKind.Bool, "true");
        public static readonly JsonValue False = new JsonValue(JsonKind.Bool, "false");

        private readonly string _text;
        private readonly List<JsonValue> _items;
        private readonly List<string> _keys;

        private JsonValue(
            JsonKind kind, string text, List<JsonValue> items = null, List<string> keys = null)
        {
            Kind = kind;
            _text = text;
            _items = items ?? NoItems;
            _keys = keys ?? NoKeys;
        }

        public JsonKind Kind { get; private set; }

        public bool IsMissing { get { return Kind == JsonKind.Missing; } }

        /// <summary>The number of items of an array, or of members of an object.</summary>
        public int Count { get { return _items.Count; } }

        /// <summary>The names of an object's members, in order.</summary>
        public IList<string> Keys { get { return _keys.AsReadOnly(); } }

        /// <summary>An item of an array or the value of a member, by position.</summary>
        public JsonValue this[int index]
        {
            get { return index >= 0 && index < _items.Count ? _items[index] : Missing; }
        }

        /// <summary>The value of a member. Of several with one name it is the last.</summary>
        public JsonValue this[string key]
        {
            get
            {
                for (int i = _keys.Count - 1; i >= 0; i--)
                {
                    if (_keys[i] == key) return _items[i];
                }
                return Missing;
            }
        }

        public static JsonValue Of(string text)
        {
            return text == null ? Null : new JsonValue(JsonKind.String, text);
        }

        public static JsonValue Of(bool value) { return value ? True : False; }

        public static JsonValue Of(long value)
        {
            return new JsonValue(JsonKind.Number, value.ToString(CultureInfo.InvariantCulture));
        }

        public static JsonValue Of(double value)
        {
            if (double.IsNaN(value) || double.IsInfinity(value))
                throw new ArgumentException("JSON has no such number: " + value);
            return new JsonValue(
                JsonKind.Number, value.ToString("R", CultureInfo.InvariantCulture));
        }

        public static JsonValue ArrayOf(IEnumerable<string> texts)
        {
            var items = new List<JsonValue>();
            foreach (string text in texts) items.Add(Of(text));
            return new JsonValue(JsonKind.Array, null, items);
        }

        public static JsonValue ArrayOf(IEnumerable<JsonValue> values)
        {
            return new JsonValue(JsonKind.Array, null, new List<JsonValue>(values));
        }

        /// <summary>Return an object with names and values in turn.</summary>
        public static JsonValue ObjectOf(params object[] namesAndValues)
        {
            var keys = new List<string>();
            var items = new List<JsonValue>();
            for (int i = 0; i + 1 < namesAndValues.Length; i += 2)
            {
                keys.Add((string)namesAndValues[i]);
                object value = namesAndValues[i + 1];
                items.Add(value as JsonValue ?? Of((string)value));
            }
            return new JsonValue(JsonKind.Object, null, items, keys);
        }

        /// <summary>Return this object with one more member, in the last place.</summary>
        public JsonValue With(string key, JsonValue value)
        {
            var keys = new List<string>(_keys);
            var items = new List<JsonValue>(_items);
            keys.Add(key);
            items.Add(value);
            return new JsonValue(JsonKind.Object, null, items, keys);
        }

        /// <summary>Return the string, or <paramref name="otherwise"/> for another kind.</summary>
        public string AsString(string otherwise = null)
        {
            return Kind == JsonKind.String ? _text : otherwise;
        }

        public bool AsBool(bool otherwise = false)
        {
            return Kind == JsonKind.Bool ? _text == "true" : otherwise;
        }

        /// <summary>Return an integer of 64 bits; anything else is <paramref name="otherwise"/>.</summary>
        public long AsLong(long otherwise = 0)
        {
            long value;
            return TryLong(out value) ? value : otherwise;
        }

        /// <summary>Return an integer up to 2^64 - 1; anything else is <paramref name="otherwise"/>.</summary>
        public ulong AsULong(ulong otherwise = 0)
        {
            ulong value;
            bool isRead = Kind == JsonKind.Number && ulong.TryParse(
                _text, NumberStyles.None, CultureInfo.InvariantCulture, out value);
            return isRead ? ulong.Parse(_text, CultureInfo.InvariantCulture) : otherwise;
        }

        public int AsInt(int otherwise = 0)
        {
            long value;
            bool fits = TryLong(out value) && value >= int.MinValue && value <= int.MaxValue;
            return fits ? (int)value : otherwise;
        }

        public double AsDouble(double otherwise = 0)
        {
            double value;
            bool isRead = Kind == JsonKind.Number && double.TryParse(
                _text, NumberStyles.Float, CultureInfo.InvariantCulture, out value);
            return isRead
                ? double.Parse(_text, NumberStyles.Float, CultureInfo.InvariantCulture)
                : otherwise;
        }

        public bool TryLong(out long value)
        {
            value = 0;
            return Kind == JsonKind.Number && long.TryParse(
                _text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out value);
        }

        /// <summary>Return the value as JSON text without spaces; "" if it is missing.</summary>
        public override string ToString()
        {
            var text = new StringBuilder();
            Write(text);
            return text.ToString();
        }

        /// <summary>
        /// Return the value that <paramref name="text"/> is.
        /// </summary>
        /// <exception cref="JsonException">The text is not one JSON value.</exception>
        public static JsonValue Parse(string text)
        {
            return new Reader(text).ReadAll();
        }

        private void Write(StringBuilder to)
        {
            switch (Kind)
            {
                case JsonKind.Missing:
                    break;
                case JsonKind.Null:
                    to.Append("null");
                    break;
                case JsonKind.String:
                    WriteString(to, _text);
                    break;
                case JsonKind.Array:
                    to.Append('[');
                    for (int i = 0; i < _items.Count; i++)
                    {
                        if (i > 0) to.Append(',');
                        _items[i].Write(to);
                    }
                    to.Append(']');
                    break;
                case JsonKind.Object:
                    to.Append('{');
                    bool isFirst = true;
                    for (int i = 0; i < _items.Count; i++)
                    {
                        if (_items[i].IsMissing) continue;
                        if (!isFirst) to.Append(',');
                        isFirst = false;
                        WriteString(to, _keys[i]);
                        to.Append(':');
                        _items[i].Write(to);
                    }
                    to.Append('}');
                    break;
                default:
                    to.Append(_text);
                    break;
            }
        }

        private static void WriteString(StringBuilder to, string text)
        {
            to.Append('"');
            for (int i = 0; i < text.Length; i++)
            {
                char c = text[i];
                if (c == '"' || c == '\\') to.Append('\\').Append(c);
                // A lone half of a surrogate pair has no UTF-8; escaped it is kept.
                else if (c < ' ' || (char.IsSurrogate(c) && !IsPaired(text, i)))
                    to.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture));
                else to.Append(c);
            }
            to.Append('"');
        }

        private static bool IsPaired(string text, int i)
        {
            return char.IsHighSurrogate(text[i])
                ? i + 1 < text.Length && char.IsLowSurrogate(text[i + 1])
                : i > 0 && char.IsHighSurrogate(text[i - 1]);
        }

        private sealed class Reader
        {
            private readonly string _source;
            private int _at;

            internal Reader(string source)
            {
                if (source == null) throw new JsonException("there is no text");
                _source = source;
            }

            internal JsonValue ReadAll()
            {
                SkipSpace();
                JsonValue value = ReadValue(0);
                SkipSpace();
                if (_at < _source.Length) throw Wrong("something follows the value");
                return value;
            }

            private JsonValue ReadValue(int depth)
            {
                if (depth > DepthMax) throw Wrong("the value is nested too deeply");
                switch (Peek())
                {
                    case '{': return ReadObject(depth);
                    case '[': return ReadArray(depth);
                    case '"': return new JsonValue(JsonKind.String, ReadString());
                    case 't': return ReadWord("true", True);
                    case 'f': return ReadWord("false", False);
                    case 'n': return ReadWord("null", Null);
                    default: return ReadNumber();
                }
            }

            private JsonValue ReadObject(int depth)
            {
                var keys = new List<string>();
                var items = new List<JsonValue>();
                _at++;
                SkipSpace();
                if (Peek() == '}') _at++;
                else
                {
                    while (true)
                    {
                        if (Peek() != '"') throw Wrong("a name is expected");
                        keys.Add(ReadString());
                        SkipSpace();
                        if (Next() != ':') throw Wrong("':' is expected");
                        SkipSpace();
                        items.Add(ReadValue(depth + 1));
                        SkipSpace();
                        char c = Next();
                        if (c == '}') break;
                        if (c != ',') throw Wrong("',' or '}' is expected");
                        SkipSpace();
                    }
                }
                return new JsonValue(JsonKind.Object, null, items, keys);
            }

            private JsonValue ReadArray(int depth)
            {
                var items = new List<JsonValue>();
                _at++;
                SkipSpace();
                if (Peek() == ']') _at++;
                else
                {
                    while (true)
                    {
                        items.Add(ReadValue(depth + 1));
                        SkipSpace();
                        char c = Next();
                        if (c == ']') break;
                        if (c != ',') throw Wrong("',' or ']' is expected");
                        SkipSpace();
                    }
                }
                return new JsonValue(JsonKind.Array, null, items);
            }

            private string ReadString()
            {
                int start = ++_at;
                while (_at < _source.Length)
                {
                    char c = _source[_at];
                    if (c == '"') return _source.Substring(start, _at++ - start);
                    if (c == '\\') return ReadEscapedString(start);
                    if (c < ' ') throw Wrong("a control character is not escaped");
                    _at++;
                }
                throw Wrong("the string does not end");
            }

            private string ReadEscapedString(int start)
            {
                var text = new StringBuilder(_source, start, _at - start, _at - start + 32);
                while (true)
                {
                    char c = Next();
                    if (c == '"') return text.ToString();
                    if (c < ' ') throw Wrong("a control character is not escaped");
                    text.Append(c == '\\' ? ReadEscape() : c);
                }
            }

            private char ReadEscape()
            {
                char c = Next();
                switch (c)
                {
                    case '"':
                    case '\\':
                    case '/': return c;
                    case 'b': return '\b';
                    case 'f': return '\f';
                    case 'n': return '\n';
                    case 'r': return '\r';
                    case 't': return '\t';
                    case 'u':
                        int code = 0;
                        for (int i = 0; i < 4; i++)
                        {
                            int digit = "0123456789abcdef".IndexOf(char.ToLowerInvariant(Next()));
                            if (digit < 0) throw Wrong("four hexadecimal digits are expected");
                            code = code * 16 + digit;
                        }
                        return (char)code;
                    default: throw Wrong("there is no such escape");
                }
            }

            private JsonValue ReadWord(string word, JsonValue value)
            {
                if (string.CompareOrdinal(_source, _at, word, 0, word.Length) != 0)
                    throw Wrong("a value is expected");
                _at += word.Length;
                return value;
            }

            private JsonValue ReadNumber()
            {
                int start = _at;
                if (Peek() == '-') _at++;
                if (Peek() == '0') _at++;
                else ReadDigits();
                if (Peek() == '.')
                {
                    _at++;
                    ReadDigits();
                }
                if (Peek() == 'e' || Peek() == 'E')
                {
                    _at++;
                    if (Peek() == '+' || Peek() == '-') _at++;
                    ReadDigits();
                }
                return new JsonValue(JsonKind.Number, _source.Substring(start, _at - start));
            }

            private void ReadDigits()
            {
                int start = _at;
                while (Peek() >= '0' && Peek() <= '9') _at++;
                if (_at == start) throw Wrong("a value is expected");
            }

            private void SkipSpace()
            {
                while (_at < _source.Length)
                {
                    char c = _source[_at];
                    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
                    _at++;
                }
            }

            // NUL stands for the end; within JSON it is an error, too.
            private char Peek() { return _at < _source.Length ? _source[_at] : '\0'; }

            private char Next()
            {
                if (_at >= _source.Length) throw Wrong("the text ends too early");
                return _source[_at++];
            }

            private JsonException Wrong(string problem)
            {
                return new JsonException("not JSON at character " + _at + ": " + problem);
            }
        }
    }
}
