import assert from "node:assert/strict";
import { test } from "node:test";

import { sizes } from "./sizes.js";

test("the core has at most 8 KB minified, and 20 KB as served", async (context) => {
  const { minified, served } = await sizes("src/index.js");
  context.diagnostic(`minified ${minified}, as served ${served} bytes with gzip`);
  assert.ok(minified <= 8_000, `minified: ${minified}`);
  assert.ok(served <= 20_480, `served: ${served}`);
});

test("with the inbox as an element it has at most 25 KB minified", async (context) => {
  const { minified, served } = await sizes("src/streamer-inbox.js");
  context.diagnostic(`minified ${minified}, as served ${served} bytes with gzip`);
  assert.ok(minified <= 25_000, `minified: ${minified}`);
});
