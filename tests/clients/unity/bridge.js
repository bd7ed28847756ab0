// Runs the WebGL bridge as Emscripten would link it, with a WebSocket that a test controls.
"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const vm = require("node:vm");

const memory = new Map();
const sockets = [];

class FakeWebSocket {
  constructor(url) {
    if (url.startsWith("ws://refused")) throw new Error("SecurityError");
    this.url = url;
    this.readyState = 0;
    this.sent = [];
    this.closed = [];
    sockets.push(this);
  }
  send(text) {
    this.sent.push(text);
  }
  close(code) {
    this.closed.push(code);
  }
}

let last = 0;
const library = {};
const context = {
  WebSocket: FakeWebSocket,
  LibraryManager: { library },
  mergeInto: (target, source) => Object.assign(target, source),
  autoAddDeps: (source, name) => assert.ok(name in source),
  lengthBytesUTF8: (text) => Buffer.byteLength(text),
  UTF8ToString: (at) => memory.get(at),
  stringToUTF8: (text, at, size) => {
    assert.equal(size, Buffer.byteLength(text) + 1);
    memory.set(at, text);
  },
  _malloc: () => ++last,
};
vm.createContext(context);
vm.runInContext(fs.readFileSync(process.argv[2], "utf8"), context);
// Emscripten makes a member with a dollar a global.
context.StreamerSockets = library.$StreamerSockets;

const stringIn = (text) => {
  memory.set(++last, text);
  return last;
};
const open = (url) => library.StreamerSocketOpen(stringIn(url));
const text = (id) => memory.get(library.StreamerSocketText(id));
const poll = (id) => library.StreamerSocketPoll(id);

{
  const id = open("wss://push.example/v1/stream");
  const socket = sockets.at(-1);
  assert.equal(socket.url, "wss://push.example/v1/stream");
  assert.equal(poll(id), 0);
  library.StreamerSocketSend(id, stringIn("too early"));
  socket.readyState = 1;
  socket.onopen();
  socket.onmessage({ data: "héllo 😀" });
  socket.onmessage({ data: new ArrayBuffer(3) });
  assert.equal(poll(id), 1);
  library.StreamerSocketSend(id, stringIn("auth"));
  assert.deepEqual(socket.sent, ["auth"]);
  assert.equal(poll(id), 2);
  assert.equal(text(id), "héllo 😀");
  assert.equal(poll(id), 2);
  assert.equal(text(id), "");
  socket.onclose({ code: 4200, reason: "token" });
  socket.onmessage({ data: "after the end" });
  assert.equal(poll(id), 3);
  assert.equal(text(id), "token");
  assert.equal(library.StreamerSocketCode(id), 4200);
  assert.equal(poll(id), 0);
  library.StreamerSocketClose(id);
  library.StreamerSocketClose(id);
  assert.equal(poll(id), 0);
}

{
  // An address that the browser refuses ends as a connection does.
  const id = open("ws://refused");
  assert.equal(poll(id), 3);
  assert.match(text(id), /SecurityError/);
  library.StreamerSocketClose(id);
}

{
  // What a hidden tab does not take is bounded.
  const id = open("wss://push.example");
  const socket = sockets.at(-1);
  for (let i = 0; i < 5000; i++) socket.onmessage({ data: String(i) });
  assert.deepEqual(socket.closed, [4000]);
  let count = 0;
  let kind;
  while ((kind = poll(id)) === 2) count++;
  assert.equal(count, 1000);
  assert.equal(kind, 3);
  assert.equal(library.StreamerSocketCode(id), 4000);
}

{
  // Closing gives the events up.
  const id = open("wss://push.example");
  const socket = sockets.at(-1);
  library.StreamerSocketClose(id);
  socket.onclose({ code: 1000, reason: "" });
  assert.deepEqual(socket.closed, [1000]);
  assert.deepEqual(Object.keys(library.$StreamerSockets.all).length, 1);
}
