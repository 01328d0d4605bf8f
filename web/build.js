// Makes the page's files of src/ and of LiteRT.js: node build.js [FOLDER], by default where the Python package has them.
import { cp, mkdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const out = process.argv[2] ?? here("../keras_convmixer/web/page");

await rm(out, { recursive: true, force: true });
await mkdir(`${out}/wasm`, { recursive: true });
await build({
  entryPoints: [here("src/page.ts"), here("src/worker.ts"), here("src/page.css")],
  outdir: out,
  bundle: true,
  minify: true,
  // A classic script, since LiteRT.js loads its own parts into a worker by importScripts, which modules lack.
  format: "iife",
  target: ["chrome108", "firefox114", "safari16.4"],
  legalComments: "none",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg", "wasm/NOTICE.txt", "wasm/LICENSE.txt"]) {
  await cp(here(`src/${name}`), `${out}/${name}`);
}
// One of them is downloaded: that with threads where a page may have them.
for (const name of ["litert_wasm_compat_internal", "litert_wasm_threaded_internal"]) {
  for (const suffix of [".js", ".wasm"]) {
    await cp(here(`node_modules/@litertjs/core/wasm/${name}${suffix}`), `${out}/wasm/${name}${suffix}`);
  }
}
