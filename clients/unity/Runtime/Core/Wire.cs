using System.Collections.Generic;

namespace Streamer
{
    internal enum MessageKind
    {
        /// <summary>A message of a newer server, to be ignored.</summary>
        Unknown,
        Hello,
        Notification,
        Cursor,
        Withdrawn,
        Replaced,
        Gap,
        Read,
        Unread,
        Ping,
        Pong,
        Reply,
        Error,
        Bye
    }

    /// <summary>
    /// A message of the server. Skipping one that cannot be read might skip a
    /// notification, so that is an exception; only an unknown type is ignored.
    /// </summary>
    internal sealed class Message
    {
        internal const string Ping = "{\"type\":\"ping\"}";
        internal const string Pong = "{\"type\":\"pong\"}";

        internal MessageKind Kind;
        internal string Cursor;
        internal int? Unread;
        internal long? MarksVersion;
        internal double HeartbeatS;
        internal Notification Notification;
        internal Removal Removal;
        internal Gap Gap;
        internal ReadChange Read;
        internal int Code;
        internal string Reason;
        internal double? DelayS;

        /// <summary>Return the message that starts a connection, or renews its token.</summary>
        internal static string Auth(string token)
        {
            return JsonValue.ObjectOf("type", "auth", "token", token).ToString();
        }

        /// <exception cref="UnreadableException">It does not have the form of the protocol.</exception>
        internal static Message Decode(string text)
        {
            JsonValue value;
            try
            {
                value = JsonValue.Parse(text);
            }
            catch (JsonException error)
            {
                throw new UnreadableException(error.Message);
            }
            Fields.Require(value, JsonKind.Object, "message");
            var message = new Message();
            switch (Fields.Text(value, "type", true))
            {
                case "hello": message.ReadHello(value); break;
                case "notification": message.ReadNotification(value); break;
                case "cursor":
                    message.Kind = MessageKind.Cursor;
                    message.Cursor = Fields.Text(value, "cursor", true);
                    break;
                case "withdrawn":
                    message.Kind = MessageKind.Withdrawn;
                    message.Cursor = Fields.Text(value, "cursor");
                    message.Removal = new Removal { Id = Fields.Text(value, "id", true) };
                    break;
                case "replaced":
                    message.Kind = MessageKind.Replaced;
                    message.Removal = new Removal
                    {
                        Id = Fields.Text(value, "id", true),
                        ReplacedBy = Fields.Text(value, "by", true)
                    };
                    break;
                case "gap": message.ReadGap(value); break;
                case "read": message.ReadRead(value); break;
                case "unread":
                    message.Kind = MessageKind.Unread;
                    message.Unread = Require(Fields.Number(value, "unread"), "unread");
                    break;
                case "ping": message.Kind = MessageKind.Ping; break;
                case "pong": message.Kind = MessageKind.Pong; break;
                case "reply": message.Kind = MessageKind.Reply; break;
                case "error": message.Kind = MessageKind.Error; break;
                case "bye": message.ReadBye(value); break;
            }
            return message;
        }

        private void ReadHello(JsonValue value)
        {
            Kind = MessageKind.Hello;
            Cursor = Fields.Text(value, "cursor", true);
            HeartbeatS = Fields.Real(value, "heartbeat_s") ?? 25;
            Unread = Fields.Number(value, "unread");
            MarksVersion = Fields.LongNumber(value, "marks_version");
        }

        private void ReadNotification(JsonValue value)
        {
            Kind = MessageKind.Notification;
            Cursor = Fields.Text(value, "cursor");
            Notification = Notification.Read(value["notification"]);
            Notification.Cursor = Cursor;
        }

        private void ReadGap(JsonValue value)
        {
            Kind = MessageKind.Gap;
            Cursor = Fields.Text(value, "cursor", true);
            Gap = new Gap
            {
                Reason = Fields.Text(value, "reason", true),
                Topic = Fields.Text(value, "topic"),
                Everyone = Fields.Flag(value, "everyone", false),
                To = Cursor
            };
        }

        private void ReadRead(JsonValue value)
        {
            Kind = MessageKind.Read;
            Unread = Require(Fields.Number(value, "unread"), "unread");
            MarksVersion = Fields.LongNumber(value, "marks_version");
            Read = new ReadChange
            {
                Ids = Fields.Texts(value, "ids"),
                UpTo = Fields.Text(value, "up_to"),
                All = Fields.Flag(value, "all", false),
                IsRead = Fields.Flag(value, "read", true)
            };
        }

        private void ReadBye(JsonValue value)
        {
            Kind = MessageKind.Bye;
            Code = Require(Fields.Number(value, "code"), "code");
            Reason = Fields.Text(value, "reason") ?? "";
            double? delayMs = Fields.Real(value, "delay_ms");
            if (delayMs.HasValue) DelayS = delayMs.Value / 1000;
        }

        private static int Require(int? number, string name)
        {
            if (!number.HasValue) throw new UnreadableException("no " + name);
            return number.Value;
        }
    }
}
