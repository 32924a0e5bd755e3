// Layer: apps/bench. The program's entry: runs at import, with the arguments of the process. Knows streams, nothing else.
import { Console } from "node:console";
import process from "node:process";
import { bench } from "./program.js";
import { suites } from "./suites/index.js";

// stdout holds the result alone; what a peer logs goes to stderr.
globalThis.console = new Console(process.stderr, process.stderr);

process.exitCode = await bench(process.argv.slice(2), suites, {
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
});
