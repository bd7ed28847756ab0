// Prints a player's notifications as they arrive, and goes on after every interruption.
// The settings are STREAMER_TOKEN, a player's token, and STREAMER_URL.

import { StreamerClient } from "streamer-client";

const { STREAMER_TOKEN, STREAMER_URL = "http://127.0.0.1:8080" } = process.env;

const client = new StreamerClient({ url: STREAMER_URL, token: STREAMER_TOKEN });
client.on("status", ({ status, reason }) => console.error(status, reason ?? ""));

for await (const notification of client.notifications()) {
  console.log(notification.created_at, notification.title ?? notification.type);
}
