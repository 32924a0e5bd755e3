// Layer: reference backend. A piece of memory: an ArrayBuffer.
// Knows nothing of tensors, element types or kernels.

import type { BackendBuffer } from "../view.js";

/** Memory of the reference backend. */
export class ReferenceBuffer implements BackendBuffer {
  readonly bytes: number;
  readonly memory: ArrayBuffer;

  constructor(memory: ArrayBuffer) {
    this.bytes = memory.byteLength;
    this.memory = memory;
  }
}
