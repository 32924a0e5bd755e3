// Layer: tools. The root scripts: each sets the workspace up when needed and hands over to the real program.
// Plain Node without dependencies. Everything it says itself goes to stderr.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { installPeers, root, SetupError, setup } from "./bootstrap.mjs";

const usage = `usage: node tools/run.mjs COMMAND [ARGUMENTS]

  setup              install dependencies and build
  test [FILTER...]   run the tests, all or those whose file matches (arguments go to vitest)
  demo [ARGUMENTS]   train a plain and a differential model side by side
  bench [SUITE]      time the stack (arguments go to apps/bench)
  playground         build the page that trains in a browser, and serve it here
  lint               formatter, linter, and the types of the tests
  check              lint, and the packed packages (publint, attw, a blank project)
`;

/** Goes on as `entry` in this process, so that signals, exit codes and stdout are its own. */
async function handOver(entry, args) {
  const file = path.join(root, entry);
  if (!existsSync(file)) throw new SetupError(`${entry} does not exist after the build.`);
  process.argv = [process.argv[0], file, ...args];
  await import(pathToFileURL(file).href);
}

/** Runs a Node program of the workspace; true when it ended with 0. */
function step(title, file, args) {
  process.stderr.write(`\n== ${title}\n`);
  const { status } = spawnSync(process.execPath, [path.join(root, file), ...args], { cwd: root, stdio: "inherit" });
  process.stderr.write(`== ${title}: ${status === 0 ? "passed" : "FAILED"}\n`);
  return status === 0;
}

const biome = ["formatter and linter", "node_modules/@biomejs/biome/bin/biome", ["check", "--error-on-warnings", "."]];
const testTypes = ["types of tests and tools", "node_modules/typescript/bin/tsc", ["-p", "tsconfig.test.json"]];
const packed = ["packed packages", "tools/pack-check.mjs", []];

function steps(list) {
  const failed = list.filter((entry) => !step(...entry)).length;
  process.stderr.write(`\n${list.length - failed} passed, ${failed} failed\n`);
  if (failed) process.exitCode = 1;
}

async function main([command, ...args]) {
  switch (command) {
    case "setup":
      setup();
      break;
    case "test":
      setup();
      await handOver("node_modules/vitest/vitest.mjs", ["run", "--root", root, ...args]);
      break;
    case "demo":
      setup();
      await handOver("apps/cli/dist/demo.js", args);
      break;
    case "bench":
      setup();
      if (args.includes("cpu")) installPeers();
      await handOver("apps/bench/dist/main.js", args);
      break;
    case "playground":
      setup();
      await handOver("apps/playground/serve.mjs", args);
      break;
    case "lint":
      setup();
      steps([biome, testTypes]);
      break;
    case "check":
      setup();
      steps([biome, testTypes, packed]);
      break;
    default:
      process.stderr.write(command === undefined ? usage : `unknown command "${command}"\n\n${usage}`);
      process.exitCode = 2;
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`setup failed: ${error.message}\n`);
  process.exitCode = 1;
}
