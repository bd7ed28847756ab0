// A development server as webpack's and Express make it: `compression`, then a proxy.
// Arguments: the port of the server. Prints its own port.

const http = require("http");
const compression = require("compression")();

const target = Number(process.argv[2]);

const proxy = http.createServer((request, response) =>
  compression(request, response, () => {
    const { method, url, headers } = request;
    const forwarded = http.request({ port: target, method, path: url, headers });
    forwarded.on("response", (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    forwarded.on("error", () => response.destroy());
    response.on("close", () => forwarded.destroy());
    request.pipe(forwarded);
  })
);

proxy.listen(0, "127.0.0.1", () => console.log(proxy.address().port));
