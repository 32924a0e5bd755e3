// A helper of the pool, as the script of a worker: an instance of the module over the caller's memory, which takes part in
// the caller's loops until the worker is ended.
// Knows messages. Knows no kernel.

import { nodeModule } from "./features.js";
import { instantiate } from "./instance.js";

/** What a helper begins with. */
export interface HelperStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Addresses: the end of the helper's stack, and what it has of its own instead of thread-local variables. */
  readonly stack: number;
  readonly local: number;
}

/** What a helper answers, before it begins: nothing where all is well. */
export interface HelperAnswer {
  readonly error?: string;
}

/** A page's worker is its own port; Node's has one. */
interface Port {
  onmessage: ((event: { readonly data: HelperStart }) => void) | null;
  postMessage(answer: HelperAnswer): void;
}

const port = (nodeModule("node:worker_threads")?.parentPort ?? globalThis) as unknown as Port;

port.onmessage = async ({ data: { module, memory, stack, local } }) => {
  try {
    const helper = await instantiate(module, memory);
    helper.__stack_pointer.value = stack;
    helper.__wasm_init_tls?.(local);
    port.postMessage({});
    helper.help();
  } catch (error) {
    port.postMessage({ error: String(error) });
  }
};
