// The helpers of the pool: as many workers as there are threads besides the caller, in a browser or in Node.
// Knows workers. Knows no kernel.

import { BackendError } from "@diffmamba/tensor";
import { nodeModule } from "./features.js";
import type { Exports } from "./instance.js";
import type { HelperAnswer, HelperStart } from "./worker.js";

/** Bytes of a helper's stack; the caller's, which the linker lays out, is as large. */
const STACK_BYTES = 262144;

interface Helper {
  /** Resolves when it waits for loops. */
  begin(start: HelperStart): Promise<void>;
  end(): void;
}

function openInBrowser(url: string | URL | undefined): Helper {
  const worker =
    url === undefined
      ? // As bundlers want to read it: in one piece.
        new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "diffmamba" })
      : new Worker(url, { type: "module", name: "diffmamba" });
  return {
    begin: (start) =>
      new Promise((resolve, reject) => {
        worker.onmessage = ({ data }: MessageEvent<HelperAnswer>) =>
          data.error === undefined ? resolve() : reject(new Error(data.error));
        worker.onerror = ({ message }) => reject(new Error(message || "its script could not be loaded"));
        worker.postMessage(start);
      }),
    end: () => worker.terminate(),
  };
}

type NodeWorker = typeof import("node:worker_threads").Worker;

function openInNode(NodeWorker: NodeWorker, url: string | URL | undefined): Helper {
  const worker = new NodeWorker(new URL(url ?? new URL("./worker.js", import.meta.url)));
  return {
    begin: async (start) => {
      await new Promise<void>((resolve, reject) => {
        worker.once("message", ({ error }: HelperAnswer) =>
          error === undefined ? resolve() : reject(new Error(error)),
        );
        worker.once("error", reject);
        worker.postMessage(start);
      });
      // A process may end while helpers wait.
      worker.unref();
    },
    end: () => void worker.terminate(),
  };
}

function open(url: string | URL | undefined): Helper {
  const threads = typeof Worker === "function" ? undefined : nodeModule("node:worker_threads");
  return threads === undefined ? openInBrowser(url) : openInNode(threads.Worker, url);
}

/**
 * Starts workers that take part in the loops of `caller`.
 * @param url the worker's script, where it is not beside this one
 * @returns what ends them
 * @throws BackendError where one does not start; then none is left
 */
export async function startHelpers(
  count: number,
  caller: Exports,
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  url: string | URL | undefined,
): Promise<() => void> {
  const helpers: Helper[] = [];
  const end = () => {
    for (const helper of helpers.splice(0)) helper.end();
  };
  const allocate = (bytes: number) => {
    const address = caller.allocate(bytes) >>> 0;
    if (address === 0) throw new Error("there is no memory for its stack");
    return address;
  };
  try {
    const starts: HelperStart[] = [];
    for (let i = 0; i < count; i++) {
      const stack = allocate(STACK_BYTES) + STACK_BYTES;
      starts.push({ module, memory, stack, local: allocate(Number(caller.__tls_size?.value ?? 0)) });
      helpers.push(open(url));
    }
    await Promise.all(helpers.map((helper, i) => helper.begin(starts[i])));
  } catch (error) {
    end();
    const { message } = error as Error;
    throw new BackendError(`cpu: a worker of ${count} could not be started (${message}); ask for one thread.`);
  }
  return end;
}
