// The proxy makes the push server part of the page's origin. STREAMER_KEY is a backend
// key; in production your backend has it, and gives tokens of the signed-in player.

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const { STREAMER_KEY = "", STREAMER_URL = "http://127.0.0.1:8080" } = process.env;

const tokens = {
  name: "tokens",
  configureServer(server) {
    server.middlewares.use("/token", async (_, response) => {
      const answer = await fetch(`${STREAMER_URL}/v1/tokens`, {
        method: "POST",
        headers: { Authorization: `Bearer ${STREAMER_KEY}`, "Content-Type": "application/json" },
        body: JSON.stringify({ player: "alice" }),
      });
      response.statusCode = answer.status;
      response.end(await answer.text());
    });
  },
};

export default defineConfig({
  plugins: [react(), tokens],
  server: { proxy: { "/v1": { target: STREAMER_URL, ws: true } } },
});
