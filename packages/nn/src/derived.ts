// A value that is made of parameters alone, such as -exp(A_log), and that a step of decoding finds as the step before left it.
// Knows parameters and when they change. Knows no layer.

import { isRecording, keep, scope, type Tensor } from "@diffmamba/tensor";
import type { Module } from "./module.js";
import type { Parameter } from "./parameter.js";

export class Derived {
  #kept: { readonly key: string; readonly value: Tensor } | undefined;

  /**
   * The value for a layer's input x (B, L, ...): kept where L is 1, the module is in evaluation mode and no gradient is recorded, until
   * a parameter that it is made of changes; made each time otherwise.
   */
  get(module: Module, x: Tensor, from: readonly Parameter[], make: () => Tensor): Tensor {
    if (module.training || isRecording() || x.dim(1) !== 1) return make();
    const key = `${x.dtype} ${from.map(({ storage }) => storage.version).join(" ")}`;
    if (this.#kept?.key === key) return this.#kept.value;
    // What is made while kernels are recorded belongs to the recording.
    if (x.device.backend.recording) return make();
    this.dispose();
    this.#kept = { key, value: keep(scope(make)) };
    return this.#kept.value;
  }

  /** Lets go of the value. */
  dispose(): void {
    this.#kept?.value.dispose();
    this.#kept = undefined;
  }
}
