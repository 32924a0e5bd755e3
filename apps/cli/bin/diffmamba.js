#!/usr/bin/env node
// Layer: apps/cli. The launcher behind `diffmamba`: it finds the built program and starts it, and knows no command.
import { existsSync } from "node:fs";

const main = new URL("../dist/main.js", import.meta.url);

if (existsSync(main)) {
  await import(main.href);
} else {
  process.stderr.write(
    "diffmamba: the program has not been built (dist/main.js is missing). " +
      "In a clone of the repository, run `npm run setup` at its root first.\n",
  );
  process.exitCode = 1;
}
