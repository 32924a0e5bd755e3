// The CPU backend over the WebAssembly module: what differs from Node's is that its threads end with it.
// Knows the pool. Knows no kernel and no memory.

import { CpuBackend } from "../backend.js";
import type { WasmAddon } from "./addon.js";

export class WasmBackend extends CpuBackend {
  readonly #endHelpers: () => void;

  constructor(addon: WasmAddon, options: { readonly threads: number; readonly memoryLimit: number }, end: () => void) {
    super(addon, options);
    this.#endHelpers = end;
  }

  override async dispose(): Promise<void> {
    await super.dispose();
    this.#endHelpers();
  }
}
