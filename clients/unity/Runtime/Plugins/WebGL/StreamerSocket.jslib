// WebSockets of the browser for WebGLSocket.cs, which polls: an event is taken in the frame
// that asks for it. ES5, as Unity's older Emscripten needs it.
var StreamerSocketLibrary = {
  $StreamerSockets: {
    last: 0,
    all: {},
    // What waits while a tab is not drawn is bounded. Beyond it the connection ends, and the
    // client resumes from its cursor when it runs again.
    eventsMax: 1000,

    put: function (one, event) {
      if (one.ended) return;
      if (event.kind === 2 && one.events.length >= StreamerSockets.eventsMax) {
        one.ended = true;
        one.events.push({ kind: 3, text: "too many messages wait", code: 4000 });
        one.socket.close(4000);
        return;
      }
      if (event.kind === 3) one.ended = true;
      one.events.push(event);
    },

    stringOf: function (text) {
      var size = lengthBytesUTF8(text) + 1;
      var at = _malloc(size);
      stringToUTF8(text, at, size);
      return at;
    }
  },

  StreamerSocketOpen: function (url) {
    var id = ++StreamerSockets.last;
    var one = { socket: null, events: [], taken: null, ended: false };
    StreamerSockets.all[id] = one;
    try {
      one.socket = new WebSocket(UTF8ToString(url));
    } catch (error) {
      // Of an https page with a ws:// server, for example.
      StreamerSockets.put(one, { kind: 3, text: String(error), code: 0 });
      return id;
    }
    one.socket.onopen = function () {
      StreamerSockets.put(one, { kind: 1, text: "", code: 0 });
    };
    one.socket.onmessage = function (message) {
      // A binary message is as unreadable as "" is.
      var text = typeof message.data === "string" ? message.data : "";
      StreamerSockets.put(one, { kind: 2, text: text, code: 0 });
    };
    one.socket.onclose = function (end) {
      StreamerSockets.put(one, { kind: 3, text: end.reason, code: end.code });
    };
    return id;
  },

  StreamerSocketPoll: function (id) {
    var one = StreamerSockets.all[id];
    if (!one || one.events.length === 0) return 0;
    one.taken = one.events.shift();
    return one.taken.kind;
  },

  StreamerSocketText: function (id) {
    var one = StreamerSockets.all[id];
    return StreamerSockets.stringOf(one && one.taken ? one.taken.text : "");
  },

  StreamerSocketCode: function (id) {
    var one = StreamerSockets.all[id];
    return one && one.taken ? one.taken.code : 0;
  },

  StreamerSocketSend: function (id, text) {
    var one = StreamerSockets.all[id];
    // Before it is open, and after its end, there is nobody to send to.
    if (one && one.socket && one.socket.readyState === 1) one.socket.send(UTF8ToString(text));
  },

  StreamerSocketClose: function (id) {
    var one = StreamerSockets.all[id];
    if (!one) return;
    delete StreamerSockets.all[id];
    one.ended = true;
    if (one.socket) one.socket.close(1000);
  }
};

autoAddDeps(StreamerSocketLibrary, "$StreamerSockets");
mergeInto(LibraryManager.library, StreamerSocketLibrary);
