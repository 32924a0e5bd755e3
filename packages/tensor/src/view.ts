// Memory as backends and their kernels see it: a buffer, and a view of one.
// Knows shapes and element types. Knows no Tensor and no kernel.

import type { DType } from "./dtype.js";
import type { Layout } from "./layout.js";

/** A backend's own piece of memory; the core only carries it about. */
export interface BackendBuffer {
  readonly bytes: number;
}

/** What a kernel sees of a tensor. Strides and offset count elements. */
export interface View extends Layout {
  readonly buffer: BackendBuffer;
  readonly dtype: DType;
}
