// Layer: apps/cli. The program behind `diffmamba`: runs the command line of this process.
import process from "node:process";
import { main } from "./program.js";

const code = await main(process.argv.slice(2));
// A command that a signal has stopped has its exit code set already.
process.exitCode = code === 0 ? (process.exitCode ?? 0) : code;
