// The game's backend: serves the page, and gives the player who is signed in a token.
// The settings are STREAMER_KEY, a backend key; STREAMER_URL; and PORT.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const { STREAMER_KEY, STREAMER_URL = "http://127.0.0.1:8080", PORT = "3000" } = process.env;
if (!STREAMER_KEY) throw new Error("set STREAMER_KEY to a backend key, of `streamer key create`");

// Your game knows who is signed in, by its session cookie for example.
const signedIn = () => "alice";

async function token(player) {
  const response = await fetch(`${STREAMER_URL}/v1/tokens`, {
    method: "POST",
    headers: { Authorization: `Bearer ${STREAMER_KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({ player }),
  });
  if (!response.ok) throw new Error(`no token: ${response.status} ${await response.text()}`);
  return response.text();
}

const server = createServer(async (request, response) => {
  try {
    if (request.url === "/token") {
      const body = await token(signedIn(request));
      response.setHeader("Cache-Control", "no-store");
      response.setHeader("Content-Type", "application/json").end(body);
    } else {
      const page = await readFile(new URL("index.html", import.meta.url), "utf8");
      response.setHeader("Content-Type", "text/html");
      response.end(page.replaceAll("%STREAMER%", STREAMER_URL));
    }
  } catch (error) {
    console.error(error);
    response.writeHead(502).end();
  }
});

server.listen(Number(PORT), "127.0.0.1", () => {
  // The server must allow this origin: STREAMER_ALLOWED_ORIGINS=http://127.0.0.1:3000
  console.log(`open http://127.0.0.1:${server.address().port}`);
});
