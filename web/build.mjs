// Builds the page into the Python package, or with --test the tests into .build.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

const OUT = "../src/medical_vqa/serving/page";

/** SHA-256 over the names and contents of what the page is built from; a Python test computes the same. */
async function sourceDigest() {
  const names = (await readdir("src", { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).replaceAll("\\", "/"));
  const digest = createHash("sha256");
  for (const name of [...names, "package.json", "package-lock.json", "build.mjs"].sort()) {
    digest.update(name + "\0");
    digest.update(await readFile(name));
  }
  return digest.digest("hex");
}

if (process.argv.includes("--test")) {
  const names = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
  await build({ entryPoints: names.map((name) => `test/${name}`), outdir: ".build", outExtension: { ".js": ".mjs" }, bundle: true, platform: "node", format: "esm", logLevel: "warning" });
} else {
  await mkdir(OUT, { recursive: true });
  await build({
    entryPoints: { page: "src/main.tsx" },
    outdir: OUT,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    jsx: "automatic",
    jsxImportSource: "preact",
    charset: "utf8",
    legalComments: "eof",
    logLevel: "warning",
  });
  await writeFile(join(OUT, "index.html"), await readFile("src/index.html"));
  await writeFile(join(OUT, "source.sha256"), (await sourceDigest()) + "\n");
}
