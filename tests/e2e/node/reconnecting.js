// A reader with `reconnecting-websocket`, which resumes from its last cursor.
// Arguments: the URL, the token. Prints each notification as a line of JSON.

const ReconnectingWebSocket = require("reconnecting-websocket");
const { WebSocket } = require("ws");

const [url, token] = process.argv.slice(2);
let cursor = "earliest";
const socket = new ReconnectingWebSocket(() => `${url}?cursor=${cursor}`, [], {
  WebSocket,
  minReconnectionDelay: 100,
  maxReconnectionDelay: 1000,
});

socket.onopen = () => socket.send(JSON.stringify({ type: "auth", token }));
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  cursor = message.cursor ?? cursor;
  console.log(JSON.stringify({ kind: message.type, data: message.notification }));
};
