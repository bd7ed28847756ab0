using System;
using System.Collections.Generic;
using System.Globalization;

namespace Streamer
{
    /// <summary>One item of a notification's ordered list of properties.</summary>
    public struct Property
    {
        public readonly string Key;
        public readonly string Value;

        public Property(string key, string value)
        {
            Key = key;
            Value = value;
        }
    }

    /// <summary>
    /// A notification as a player receives it. Optional strings are null if they are
    /// missing. Its texts are written by other people: escape them where your display
    /// interprets markup (in Unity, turn rich text off).
    /// </summary>
    public sealed class Notification
    {
        private static readonly Property[] NoProperties = new Property[0];

        /// <summary>A UUID. Unique; two notifications with one id are the same.</summary>
        public string Id { get; private set; }
        /// <summary>When the server stored it, in UTC.</summary>
        public DateTime CreatedAt { get; private set; }
        /// <summary>Its kind, for programs.</summary>
        public string Type { get; private set; }
        public string Title { get; private set; }
        public string Body { get; private set; }
        /// <summary>Any JSON value; of the kind Missing if there is none.</summary>
        public JsonValue Data { get; private set; }
        public IList<Property> Properties { get; private set; }
        /// <summary>low, medium, high or emergency; a newer server may have others.</summary>
        public string Priority { get; private set; }
        /// <summary>What it refers to, and the ETag that this had then.</summary>
        public string ResourceUrl { get; private set; }
        public string ResourceEtag { get; private set; }
        public string Source { get; private set; }
        /// <summary>The topic that it was sent to, null for none.</summary>
        public string Topic { get; private set; }
        /// <summary>Whether it was sent to every player.</summary>
        public bool Everyone { get; private set; }
        public DateTime? ExpiresAt { get; private set; }
        public string CollapseKey { get; private set; }
        public DateTime? DueAt { get; private set; }
        /// <summary>When it was marked as read; on pages only.</summary>
        public DateTime? ReadAt { get; private set; }
        /// <summary>
        /// The point after this notification; on streams only. Null if the server sends
        /// it later, or if the notification is not stored.
        /// </summary>
        public string Cursor { get; internal set; }

        /// <summary>Whether pages have it. Other notifications arrive on streams only.</summary>
        // The id of one that is not stored is random, of version 4.
        public bool IsStored { get { return Id.Length < 15 || Id[14] != '4'; } }

        private Notification() { }

        /// <summary>Return the notification that a JSON object is.</summary>
        /// <exception cref="UnreadableException">It has another form.</exception>
        public static Notification Read(JsonValue value)
        {
            Fields.Require(value, JsonKind.Object, "notification");
            JsonValue resource = value["resource"];
            var read = new Notification
            {
                Id = Fields.Text(value, "id", true),
                CreatedAt = Fields.Time(value, "created_at").GetValueOrDefault(),
                Type = Fields.Text(value, "type"),
                Title = Fields.Text(value, "title"),
                Body = Fields.Text(value, "body"),
                Data = value["data"],
                Priority = Fields.Text(value, "priority") ?? "medium",
                Source = Fields.Text(value, "source"),
                Topic = Fields.Text(value, "topic"),
                Everyone = Fields.Flag(value, "everyone", false),
                ExpiresAt = Fields.Time(value, "expires_at"),
                CollapseKey = Fields.Text(value, "collapse_key"),
                DueAt = Fields.Time(value, "due_at"),
                ReadAt = Fields.Time(value, "read_at"),
                Properties = ReadProperties(value["properties"])
            };
            if (value["created_at"].IsMissing) throw new UnreadableException("no created_at");
            if (Fields.IsPresent(resource))
            {
                Fields.Require(resource, JsonKind.Object, "resource");
                read.ResourceUrl = Fields.Text(resource, "url", true);
                read.ResourceEtag = Fields.Text(resource, "etag");
            }
            return read;
        }

        private static IList<Property> ReadProperties(JsonValue list)
        {
            if (!Fields.IsPresent(list)) return NoProperties;
            Fields.Require(list, JsonKind.Array, "properties");
            var read = new Property[list.Count];
            for (int i = 0; i < read.Length; i++)
            {
                Fields.Require(list[i], JsonKind.Object, "a property");
                read[i] = new Property(
                    Fields.Text(list[i], "key", true), Fields.Text(list[i], "value", true));
            }
            return read;
        }
    }

    /// <summary>A page of notifications.</summary>
    public sealed class Page
    {
        /// <summary>Newest first, unless the query asked for the oldest.</summary>
        public IList<Notification> Notifications { get; private set; }
        /// <summary>Pass it as Before to get the next older page; null on the last one.</summary>
        public string Next { get; private set; }
        /// <summary>The unread notifications of the whole inbox.</summary>
        public int Unread { get; private set; }
        /// <summary>The end of the inbox at that moment; a stream continues from it.</summary>
        public string Cursor { get; private set; }
        /// <summary>Why notifications after After are missing; oldest first only.</summary>
        public string Gap { get; private set; }

        internal static Page Read(JsonValue value)
        {
            Fields.Require(value, JsonKind.Object, "page");
            JsonValue list = value["notifications"];
            Fields.Require(list, JsonKind.Array, "notifications");
            var read = new Notification[list.Count];
            for (int i = 0; i < read.Length; i++) read[i] = Notification.Read(list[i]);
            return new Page
            {
                Notifications = read,
                Next = Fields.Text(value, "next"),
                Unread = Fields.Number(value, "unread").GetValueOrDefault(),
                Cursor = Fields.Text(value, "cursor"),
                Gap = Fields.Text(value, "gap")
            };
        }
    }

    /// <summary>Which notifications a page has. All members are optional.</summary>
    public sealed class PageQuery
    {
        /// <summary>1 to 100; 0 is the server's default of 20.</summary>
        public int Limit;
        /// <summary>A cursor or an id, exclusive. Pass Page.Next for the next older page.</summary>
        public string Before;
        /// <summary>A cursor or an id, exclusive.</summary>
        public string After;
        /// <summary>Only notifications of one of these types.</summary>
        public IList<string> Types;
        public IList<string> Priorities;
        public string Topic;
        public bool UnreadOnly;
        public bool OldestFirst;
    }

    /// <summary>
    /// Some notifications after the client's cursor do not arrive on this stream. See
    /// <see cref="StreamerClient.FillGapAsync"/>.
    /// </summary>
    public sealed class Gap
    {
        /// <summary>too_far, trimmed, epoch, ahead or diverged; a newer server may have others.</summary>
        public string Reason { get; internal set; }
        /// <summary>The topic whose notifications are missing, null if it is not one topic.</summary>
        public string Topic { get; internal set; }
        /// <summary>Whether only what was sent to everyone is missing.</summary>
        public bool Everyone { get; internal set; }
        /// <summary>The client's cursor before the gap; null if it had none.</summary>
        public string From { get; internal set; }
        /// <summary>The cursor after which the stream continues.</summary>
        public string To { get; internal set; }

        /// <summary>Whether pages may be read from <see cref="From"/> on.</summary>
        internal bool IsFromValid
        {
            get { return From != null && (Reason == "too_far" || Reason == "trimmed"); }
        }
    }

    /// <summary>Something was marked as read or unread, on any device.</summary>
    public sealed class ReadChange
    {
        /// <summary>The ids; null if it is not a list of ids.</summary>
        public IList<string> Ids { get; internal set; }
        /// <summary>Everything up to this cursor, null if it is not a range.</summary>
        public string UpTo { get; internal set; }
        /// <summary>Everything that was there.</summary>
        public bool All { get; internal set; }
        /// <summary>False if read marks were removed.</summary>
        public bool IsRead { get; internal set; }
        /// <summary>The server does not say which: read the page again.</summary>
        public bool IsUnknown { get { return Ids == null && UpTo == null && !All; } }
    }

    /// <summary>A notification has ended. Remove it from the screen if it is there.</summary>
    public sealed class Removal
    {
        public string Id { get; internal set; }
        /// <summary>The notification that replaces it and follows at once; null if it was withdrawn.</summary>
        public string ReplacedBy { get; internal set; }
    }

    /// <summary>A message of the server does not have the form of the protocol.</summary>
    public sealed class UnreadableException : Exception
    {
        public UnreadableException(string message) : base(message) { }
    }

    /// <summary>
    /// Members of JSON objects with the type that the protocol gives them. Null counts as
    /// missing; a member of another type is an <see cref="UnreadableException"/>.
    /// </summary>
    internal static class Fields
    {
        private static readonly string[] TimeFormats =
        {
            "yyyy-MM-dd'T'HH:mm:ssK", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK"
        };

        internal static bool IsPresent(JsonValue value)
        {
            return value.Kind != JsonKind.Missing && value.Kind != JsonKind.Null;
        }

        internal static void Require(JsonValue value, JsonKind kind, string name)
        {
            if (value.Kind != kind)
                throw new UnreadableException(name + " is " + value.Kind + ", not " + kind);
        }

        internal static string Text(JsonValue of, string name, bool isRequired = false)
        {
            JsonValue value = of[name];
            if (!isRequired && !IsPresent(value)) return null;
            Require(value, JsonKind.String, name);
            return value.AsString();
        }

        internal static bool Flag(JsonValue of, string name, bool otherwise)
        {
            JsonValue value = of[name];
            if (!IsPresent(value)) return otherwise;
            Require(value, JsonKind.Bool, name);
            return value.AsBool();
        }

        internal static int? Number(JsonValue of, string name)
        {
            JsonValue value = of[name];
            if (!IsPresent(value)) return null;
            long number;
            if (!value.TryLong(out number) || number < int.MinValue || number > int.MaxValue)
                throw new UnreadableException(name + " is not an integer of 32 bits");
            return (int)number;
        }

        internal static long? LongNumber(JsonValue of, string name)
        {
            JsonValue value = of[name];
            if (!IsPresent(value)) return null;
            long number;
            if (!value.TryLong(out number))
                throw new UnreadableException(name + " is not an integer");
            return number;
        }

        internal static double? Real(JsonValue of, string name)
        {
            JsonValue value = of[name];
            if (!IsPresent(value)) return null;
            Require(value, JsonKind.Number, name);
            return value.AsDouble();
        }

        internal static IList<string> Texts(JsonValue of, string name)
        {
            JsonValue list = of[name];
            if (!IsPresent(list)) return null;
            Require(list, JsonKind.Array, name);
            var read = new string[list.Count];
            for (int i = 0; i < read.Length; i++)
            {
                Require(list[i], JsonKind.String, "an item of " + name);
                read[i] = list[i].AsString();
            }
            return read;
        }

        internal static DateTime? Time(JsonValue of, string name)
        {
            string text = Text(of, name);
            if (text == null) return null;
            DateTime time;
            bool isRead = DateTime.TryParseExact(
                text, TimeFormats, CultureInfo.InvariantCulture,
                DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal, out time);
            if (!isRead) throw new UnreadableException(name + " is not a time: " + text);
            return time;
        }
    }
}
