// Storage: a buffer shared by the views of it, counted, freed with the last of them.
// Knows the backend's memory calls. Knows no shape and no op.

import type { Backend, BackendBuffer } from "./backend.js";
import { LifetimeError } from "./errors.js";

/** Live tensors and storages of a device. */
export interface MemoryUse {
  /** Tensor handles not disposed of. */
  tensors: number;
  /** Buffers under them. */
  buffers: number;
  /** Bytes of those buffers. */
  bytes: number;
  /** The most bytes there have been at once. */
  peakBytes: number;
}

export class Storage {
  #buffer: BackendBuffer;
  /** Goes up with each write in place; backward refuses values that changed since they were saved. */
  version = 0;
  /** Tensors that share this. */
  #references = 1;

  constructor(
    readonly backend: Backend,
    readonly use: MemoryUse,
    readonly bytes: number,
  ) {
    this.#buffer = backend.allocate(bytes);
    use.buffers++;
    use.bytes += bytes;
    use.peakBytes = Math.max(use.peakBytes, use.bytes);
  }

  get buffer(): BackendBuffer {
    return this.#buffer;
  }

  /** Changes memory with another storage of as many bytes: each holds what the other did. */
  exchange(other: Storage): void {
    if (other.bytes !== this.bytes || other.backend !== this.backend) {
      throw new LifetimeError("tensor: memory is exchanged only between storages of one size on one backend.");
    }
    [this.#buffer, other.#buffer] = [other.#buffer, this.#buffer];
    this.version++;
    other.version++;
  }

  get references(): number {
    return this.#references;
  }

  retain(): this {
    if (this.#references === 0) throw new LifetimeError("tensor: its memory was freed already.");
    this.#references++;
    return this;
  }

  release(): void {
    if (--this.#references > 0) return;
    this.use.buffers--;
    this.use.bytes -= this.bytes;
    this.backend.free(this.#buffer);
  }
}
