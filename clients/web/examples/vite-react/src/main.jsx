import { createRoot } from "react-dom/client";
import { StreamerClient } from "streamer-client";
import { InboxProvider, useInbox, useNotifications, useStatus, useUnread } from "streamer-client/react";

const client = new StreamerClient({
  getToken: async () => (await fetch("/token")).json(),
  tabs: true,
});

function Inbox() {
  const inbox = useInbox();
  const notifications = useNotifications();
  return (
    <main>
      <h1>
        {useUnread()} unread <small>{useStatus()}</small>
      </h1>
      <button onClick={() => inbox.markAllRead()}>Mark all as read</button>
      <ul>
        {notifications.map((it) => (
          <li key={it.id} style={{ fontWeight: it.read_at ? 400 : 700 }}>
            <button onClick={() => inbox.markRead(it.id)}>{it.title}</button>
          </li>
        ))}
      </ul>
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <InboxProvider client={client}>
    <Inbox />
  </InboxProvider>,
);
