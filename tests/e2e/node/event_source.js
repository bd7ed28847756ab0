// A reader with one of the implementations of EventSource.
// Arguments: the implementation, the URL, the token. Prints each event as a line of JSON.

const [name, url, token] = process.argv.slice(2);
const Authorization = `Bearer ${token}`;

const open = {
  "event-source-polyfill": () => {
    const { EventSourcePolyfill } = require("event-source-polyfill");
    return new EventSourcePolyfill(url, { headers: { Authorization } });
  },
  eventsource: () => {
    const { EventSource } = require("eventsource");
    const authorized = (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, Authorization } });
    return new EventSource(url, { fetch: authorized });
  },
};

const fetchEventSource = () => {
  // Made for browsers: what it asks of one is that the page is visible.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {} };
  const { fetchEventSource } = require("@microsoft/fetch-event-source");
  fetchEventSource(url, {
    headers: { Authorization },
    onmessage: ({ event, data }) => print(event || "message", data),
    onerror: () => 100,
  });
};

const print = (kind, data) =>
  console.log(JSON.stringify({ kind, data: JSON.parse(data) }));

if (name === "@microsoft/fetch-event-source") return fetchEventSource();

const source = open[name]();
for (const kind of ["message", "hello", "cursor", "gap", "bye"]) {
  source.addEventListener(kind, ({ data }) => print(kind, data));
}
