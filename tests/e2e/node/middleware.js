// A development server with `http-proxy-middleware`, as Vite and webpack have it.
// Arguments: the port of the server. Prints its own port.

const http = require("http");
const { createProxyMiddleware } = require("http-proxy-middleware");

const target = `http://127.0.0.1:${process.argv[2]}`;
const proxy = createProxyMiddleware({ target, ws: true, changeOrigin: true });
const server = http.createServer((request, response) => proxy(request, response));

server.on("upgrade", proxy.upgrade);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
