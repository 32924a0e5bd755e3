#!/usr/bin/env node
// Layer: apps/playground. Builds the page and serves it to this machine, with the headers that let it compute on threads.
// Knows Vite. Knows nothing of the page.
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build, preview } from "vite";

const root = import.meta.dirname;

const usage = `usage: serve.mjs [OPTIONS]

Builds the playground into its folder build and serves it until Ctrl-C.

  --port NUMBER   default: 4173, or the next one that is free
  --host ADDRESS  default: 127.0.0.1; a page from elsewhere is isolated, and has WebGPU, over https alone
  --help
`;

/**
 * Builds a page and serves it.
 * @param {{ port?: number, host?: string, outDir?: string, page?: string }} [options] port 0: any that is free
 * @returns {Promise<{ url: string, close(): Promise<void> }>}
 */
export async function servePage({ port = 4173, host = "127.0.0.1", outDir = "build", page = "index.html" } = {}) {
  const shared = { root, logLevel: /** @type {const} */ ("warn") };
  const input = path.join(root, page);
  await build({ ...shared, build: { outDir, emptyOutDir: true, rolldownOptions: { input } } });
  const server = await preview({ ...shared, build: { outDir }, preview: { port, host } });
  const url = server.resolvedUrls?.local[0] ?? server.resolvedUrls?.network[0];
  if (url === undefined) throw new Error("the server has no address");
  return { url, close: () => server.close() };
}

function readOptions() {
  const options = { port: { type: "string" }, host: { type: "string" }, help: { type: "boolean" } };
  try {
    const { values } = parseArgs({ options: /** @type {const} */ (options) });
    const port = values.port === undefined ? undefined : Number(values.port);
    if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port < 65536)) {
      throw new Error(`--port ${values.port} is no port: expected a whole number from 0 to 65535.`);
    }
    return { ...values, port };
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

async function main() {
  const { help, port, host } = readOptions();
  if (help) return void process.stdout.write(usage);
  try {
    const { url } = await servePage({ ...(port !== undefined && { port }), ...(host !== undefined && { host }) });
    process.stdout.write(`The playground is at ${url}\nCtrl-C ends it.\n`);
  } catch (error) {
    process.stderr.write(`The playground could not be served: ${error.message}\n`);
    process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
