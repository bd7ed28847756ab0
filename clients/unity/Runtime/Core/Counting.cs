using System.Collections.Generic;

namespace Streamer
{
    /// <summary>
    /// The number of unread notifications, by the rule of the protocol: the server's
    /// number replaces it, and each notification of the inbox adds one, repeats as well.
    /// </summary>
    internal sealed class UnreadNumber
    {
        private readonly HashSet<string> _topics;

        /// <param name="topics">The topics that this stream asks for itself.</param>
        internal UnreadNumber(IEnumerable<string> topics)
        {
            _topics = new HashSet<string>(topics);
        }

        /// <summary>Null while it is unknown.</summary>
        internal int? Value { get; private set; }

        internal void Forget() { Value = null; }

        internal void Take(Message message)
        {
            if (message.Kind == MessageKind.Notification)
            {
                Notification one = message.Notification;
                bool isCounted = one.IsStored && !(one.Topic != null && _topics.Contains(one.Topic));
                if (isCounted && Value.HasValue) Value = Value.Value + 1;
            }
            else if (message.Unread.HasValue) Value = message.Unread;
        }
    }

    /// <summary>
    /// The ids of the last notifications, with the connection that delivered them. What an
    /// earlier connection delivered is a repeat. Within one connection nothing is dropped:
    /// there the server decides.
    /// </summary>
    internal sealed class SeenIds
    {
        /// <summary>Room for the replays (500 each) of several audiences.</summary>
        internal const int IdsMax = 2048;

        private const int Page = -1;

        private readonly Dictionary<string, int> _connections = new Dictionary<string, int>();
        private readonly Queue<string> _order = new Queue<string>();
        private readonly int _idsMax;
        private int _connection;

        internal SeenIds(int idsMax = IdsMax) { _idsMax = idsMax; }

        internal void BeginConnection() { _connection++; }

        internal void Clear()
        {
            _connections.Clear();
            _order.Clear();
        }

        internal bool Contains(string id) { return _connections.ContainsKey(id); }

        /// <summary>Whether an earlier connection delivered it; remembers nothing.</summary>
        internal bool WasDeliveredBefore(string id)
        {
            int connection;
            return _connections.TryGetValue(id, out connection) && connection != _connection;
        }

        /// <summary>Remember an id; return whether an earlier connection delivered it.</summary>
        internal bool IsRepeat(string id)
        {
            int connection;
            if (_connections.TryGetValue(id, out connection)) return connection != _connection;
            Add(id, _connection);
            return false;
        }

        /// <summary>Note that the application has got it from a page: on a stream it is a repeat.</summary>
        internal void MarkDelivered(string id)
        {
            if (!_connections.ContainsKey(id)) Add(id, Page);
        }

        private void Add(string id, int connection)
        {
            _connections.Add(id, connection);
            _order.Enqueue(id);
            if (_order.Count > _idsMax) _connections.Remove(_order.Dequeue());
        }
    }
}
