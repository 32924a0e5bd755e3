// Layer: apps/cli. The program behind `diffmamba`: runs the command line of this process.
import process from "node:process";
import { main } from "./program.js";

process.exitCode = await main(process.argv.slice(2));
