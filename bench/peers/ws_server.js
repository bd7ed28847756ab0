// Pub/sub on `ws`, as its documentation shows it: POST /pub/NAME, readers on /ws/NAME.
"use strict";

const http = require("node:http");
const { WebSocketServer, WebSocket } = require("ws");

const channels = new Map();

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const data = Buffer.concat(parts);
    for (const client of channels.get(request.url.slice(5)) ?? []) {
      if (client.readyState === WebSocket.OPEN) {
        client.send(data, { binary: false });
      }
    }
    response.writeHead(202, { "Content-Length": 0 });
    response.end();
  });
});
server.keepAliveTimeout = 600_000;
server.requestTimeout = 0;

const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (client, request) => {
  const name = request.url.slice(4);
  if (!channels.has(name)) {
    channels.set(name, new Set());
  }
  channels.get(name).add(client);
  client.on("close", () => channels.get(name).delete(client));
  client.on("error", () => {});
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
