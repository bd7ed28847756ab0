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

const source = open[name]();
for (const kind of ["message", "hello", "cursor", "gap", "bye"]) {
  source.addEventListener(kind, ({ data }) =>
    console.log(JSON.stringify({ kind, data: JSON.parse(data) }))
  );
}
