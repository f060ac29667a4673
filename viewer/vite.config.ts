import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

// The page is served by Headwater's own server, which keeps what lies under assets/ (names hold a hash) in caches;
// `npm run dev` hands /api on to one that runs beside it.
export default defineConfig({
  base: "./",
  plugins: [preact()],
  build: {
    outDir: "../src/headwater/viewer/static",
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": "http://127.0.0.1:8765" } },
});
