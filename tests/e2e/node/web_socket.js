// A reader with `ws`, which offers permessage-deflate by default.
// Arguments: the URL, the token, the largest message that `ws` accepts (empty: its
// default). Prints each message and the close as a line of JSON.

const { WebSocket } = require("ws");

const [url, token, maxPayload] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const options = maxPayload ? { headers, maxPayload: Number(maxPayload) } : { headers };
const socket = new WebSocket(url, options);
const print = (kind, data) => console.log(JSON.stringify({ kind, data }));

socket.on("open", () => {
  print("open", { extensions: socket.extensions });
  socket.ping("alive?");
});
socket.on("pong", (data) => print("pong", data.toString()));
socket.on("message", (data) => {
  const message = JSON.parse(data);
  print(message.type, message.notification);
  if (message.type === "notification") socket.close(1000);
});
socket.on("close", (code) => print("close", code));
socket.on("error", (error) => print("error", error.code));
