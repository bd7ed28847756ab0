import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/**
 * Measure a module and what it imports, in bytes with gzip: minified in one file, and as
 * the files are served. What is loaded on demand is no part of it.
 *
 * @param {string} entry
 * @param {boolean} [alone] Without the modules of the core, which are there already.
 */
export async function sizes(entry, alone = false) {
  const core = alone ? Object.keys((await measured("src/index.js")).metafile.inputs) : [];
  const { outputFiles, metafile } = await measured(entry, core);
  let served = 0;
  for (const path of Object.keys(metafile.inputs)) {
    served += gzipSync(await readFile(`${ROOT}${path}`), { level: 9 }).length;
  }
  return { minified: gzipSync(outputFiles[0].contents, { level: 9 }).length, served };
}

/** @param {string} entry @param {string[]} [known] */
function measured(entry, known = []) {
  const names = known.map((path) => path.split("/").at(-1));
  const elsewhere = {
    name: "elsewhere",
    /** @param {import("esbuild").PluginBuild} build */
    setup: ({ onResolve }) =>
      onResolve({ filter: /./ }, ({ kind, path }) =>
        kind === "dynamic-import" || names.includes(path.split("/").at(-1))
          ? { external: true }
          : undefined,
      ),
  };
  return build({
    ...{ entryPoints: [entry], absWorkingDir: ROOT, plugins: [elsewhere] },
    ...{ bundle: true, minify: true, write: false, metafile: true },
    ...{ format: "esm", target: "es2022" },
  });
}
