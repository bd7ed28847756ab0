import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** What is loaded on demand is no part of what imports it. */
const onDemand = {
  name: "on-demand",
  setup: ({ onResolve }) =>
    onResolve({ filter: /./ }, ({ kind }) =>
      kind === "dynamic-import" ? { external: true } : undefined,
    ),
};

/** Bytes with gzip: minified in one file, and of the files as they are served. */
export async function sizes(entry) {
  const { outputFiles, metafile } = await build({
    ...{ entryPoints: [entry], absWorkingDir: ROOT, plugins: [onDemand] },
    ...{ bundle: true, minify: true, write: false, metafile: true },
    ...{ format: "esm", target: "es2022" },
  });
  const minified = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  let served = 0;
  for (const path of Object.keys(metafile.inputs)) {
    served += gzipSync(await readFile(`${ROOT}${path}`), { level: 9 }).length;
  }
  return { minified, served };
}

test("the core has at most 8 KB minified, and 20 KB as served", async (context) => {
  const { minified, served } = await sizes("src/index.js");
  context.diagnostic(`minified ${minified}, as served ${served} bytes with gzip`);
  assert.ok(minified <= 8_000, `minified: ${minified}`);
  assert.ok(served <= 20_480, `served: ${served}`);
});
