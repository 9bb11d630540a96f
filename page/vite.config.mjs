import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { defineConfig } from "vite";

const OUT = "../palate/serve/page";
const sources = ["index.html", "package-lock.json", "tsconfig.json", "vite.config.mjs"];
for (const found of readdirSync("src", { recursive: true, withFileTypes: true }))
  if (found.isFile()) sources.push(`${found.parentPath}/${found.name}`);
const digest = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");

// The built files are kept beside the source, without digests in their names; tests/test_page_files.py
// compares this list with what is there.
const remember = {
  name: "remember",
  closeBundle() {
    const built = readdirSync(OUT).filter((name) => name !== "built.json");
    const list = {
      sources: Object.fromEntries(sources.sort().map((path) => [path, digest(path)])),
      built: Object.fromEntries(built.sort().map((name) => [name, digest(`${OUT}/${name}`)])),
    };
    writeFileSync(`${OUT}/built.json`, `${JSON.stringify(list, null, 1)}\n`);
  },
};

export default defineConfig({
  base: "./",
  plugins: [remember],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: OUT,
    emptyOutDir: true,
    modulePreload: false,
    rollupOptions: {
      output: {
        entryFileNames: "page.js",
        assetFileNames: (asset) => (asset.names[0]?.endsWith(".css") ? "page.css" : "[name][extname]"),
      },
    },
  },
});
