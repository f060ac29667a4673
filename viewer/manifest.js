// After a build: what the page was built from, as hashes, and the licences of what is in it.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const out = "../src/headwater/viewer/static";
const sources = [
  "index.html",
  "package-lock.json",
  "vite.config.ts",
  ...readdirSync("src").map((name) => `src/${name}`),
];
const hash = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
const made = ["index.html", ...readdirSync(join(out, "assets")).map((name) => `assets/${name}`)];
const manifest = {
  sources: Object.fromEntries(sources.sort().map((path) => [path, hash(path)])),
  files: Object.fromEntries(made.sort().map((name) => [name, hash(join(out, name))])),
};
writeFileSync(join(out, "manifest.json"), `${JSON.stringify(manifest, null, 1)}\n`);

const bundled = ["preact", "@preact/signals", "@preact/signals-core"];
const texts = bundled.map((name) => {
  const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const text = readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim();
  return `${name} ${version} (${license})\n\n${text}\n`;
});
writeFileSync(
  join(out, "THIRD_PARTY.txt"),
  `The viewer's page holds parts of these packages.\n\n${texts.join(`\n${"-".repeat(72)}\n\n`)}`,
);
