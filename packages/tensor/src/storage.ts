// Storage: a buffer shared by the views of it, counted, freed with the last of them.
// Knows the backend's memory calls. Knows no shape and no op.

import type { Backend } from "./backend.js";
import { LifetimeError } from "./errors.js";
import type { BackendBuffer } from "./view.js";

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

/** What a recording is noted to use, while it is made. */
class Notes {
  /** Storages from before, and their versions when they were first used. */
  readonly used = new Map<Storage, number>();
  readonly made = new Set<Storage>();
}

let notes: Notes | undefined;

/** Storages that a recording goes on using: they keep their memory until they are let go. */
export class Holding {
  readonly #used: readonly (readonly [Storage, number])[];
  readonly #made: readonly Storage[];

  constructor({ used, made }: Notes) {
    // How far a replay takes each version on: as far as the recording did.
    this.#used = [...used].map(([storage, version]) => [storage.retain(), storage.version - version]);
    this.#made = [...made];
    for (const storage of [...used.keys(), ...made]) storage.pin(1);
  }

  /** A replay has changed what the recording changes. */
  replayed(): void {
    for (const [storage, by] of this.#used) storage.version += by;
    for (const storage of this.#made) storage.version++;
  }

  release(): void {
    for (const [storage] of this.#used) {
      storage.pin(-1);
      storage.release();
    }
    for (const storage of this.#made) storage.pin(-1);
  }
}

/** Runs `fn`, in which kernel calls are recorded. @returns what it uses, held */
export function holdUsed(fn: () => void): Holding {
  const own = new Notes();
  notes = own;
  try {
    fn();
  } finally {
    notes = undefined;
  }
  return new Holding(own);
}

export class Storage {
  #buffer: BackendBuffer;
  #pins = 0;
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
    notes?.made.add(this);
    use.buffers++;
    use.bytes += bytes;
    use.peakBytes = Math.max(use.peakBytes, use.bytes);
  }

  get buffer(): BackendBuffer {
    if (notes !== undefined && !notes.made.has(this) && !notes.used.has(this)) notes.used.set(this, this.version);
    return this.#buffer;
  }

  /** True while a recording uses this memory where it is. */
  get pinned(): boolean {
    return this.#pins > 0;
  }

  pin(by: 1 | -1): void {
    this.#pins += by;
  }

  /** Changes memory with another storage of as many bytes: each holds what the other did. */
  exchange(other: Storage): void {
    if (other.bytes !== this.bytes || other.backend !== this.backend) {
      throw new LifetimeError("tensor: memory is exchanged only between storages of one size on one backend.");
    }
    if (this.pinned || other.pinned) {
      throw new LifetimeError("tensor: memory that a recording uses cannot be exchanged; copy its content.");
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
    notes?.made.delete(this);
    this.use.buffers--;
    this.use.bytes -= this.bytes;
    this.backend.free(this.#buffer);
  }
}
