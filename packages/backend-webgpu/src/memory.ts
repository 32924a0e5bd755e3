// Layer: WebGPU memory. Buffers by sizes that few distinct ones serve, kept for the next tensor of such a size; a recording has a
// pool of its own, which takes over what is free, and whose buffers nobody else gets.
// Knows GPU buffers. Knows no tensor, no queue and no kernel.

import { type BackendBuffer, BackendError } from "@diffmamba/tensor";

/** WebGPU's flags, which are global names only in a browser. */
export const usage = {
  mapRead: 0x1,
  copySource: 0x4,
  copyTarget: 0x8,
  uniform: 0x40,
  storage: 0x80,
} as const;

/** A piece of GPU memory, which one tensor after the other uses. */
export class Slab {
  static #count = 0;
  /** Never the same twice in a process. */
  readonly id = Slab.#count++;
  /** The last batch of commands that names it: those must be on their way before the host may write. */
  usedBy: object | undefined;

  constructor(
    readonly gpu: GPUBuffer,
    readonly size: number,
    public pool: Pool,
  ) {}
}

/** A tensor's memory. */
export class WebGpuBuffer implements BackendBuffer {
  slab: Slab | undefined;

  constructor(
    slab: Slab,
    readonly bytes: number,
  ) {
    this.slab = slab;
  }
}

/** Free slabs by size; the one that was freed last is used first. */
export class Pool {
  readonly free = new Map<number, Slab[]>();
  /** Bytes of its slabs, and of those of them that tensors have. */
  held = 0;
  inUse = 0;
  /** Where slabs go that come back after this was closed. */
  heir: Pool | undefined;
}

/** The smallest size: uniform and binding offsets are multiples of it. */
const SMALLEST = 256;

/** The size that serves `bytes`: eight sizes from one power of two to the next, so that at most an eighth is lost. */
export function bucketOf(bytes: number): number {
  if (bytes <= SMALLEST) return SMALLEST;
  const step = Math.max(SMALLEST, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return Math.ceil(bytes / step) * step;
}

export interface MemoryOptions {
  create(size: number): GPUBuffer;
  /** Destroys it when the commands that name it are on their way. */
  destroy(gpu: GPUBuffer): void;
  /** The largest buffer of the device. */
  readonly largest: number;
}

/** Beyond the peak of what was in use, so much may be held outside of recordings in addition, as a share of the peak and in bytes. */
const SPARE_SHARE = 0.25;
const SPARE_BYTES = 64 * 2 ** 20;

/** Calls of {@link Memory.allocate} after which a peak is forgotten. */
const WINDOW = 1 << 16;

export class Memory {
  readonly #general = new Pool();
  #pool = this.#general;
  #held = 0;
  /** The most that was in use outside of recordings in the window before, and in this one. */
  #peaks: [number, number] = [0, 0];
  #calls = 0;

  constructor(private readonly options: MemoryOptions) {}

  get heldBytes(): number {
    return this.#held;
  }

  /** Arbitrary content. @throws BackendError where a buffer cannot be so large */
  allocate(bytes: number): WebGpuBuffer {
    const { largest } = this.options;
    // A device's largest size need not be one of the pool's.
    const size = Math.min(bucketOf(bytes), Math.max(largest, bytes));
    if (bytes > largest) {
      throw new BackendError(`webgpu: ${bytes} bytes are more than this device's largest buffer, ${largest} bytes.`);
    }
    const slab = this.#pool.free.get(size)?.pop() ?? this.#takeOver(size) ?? this.#make(size);
    this.#pool.inUse += size;
    const { inUse } = this.#general;
    if (inUse > this.#peaks[1]) this.#peaks[1] = inUse;
    if (++this.#calls % WINDOW === 0) this.#peaks = [this.#peaks[1], inUse];
    return new WebGpuBuffer(slab, bytes);
  }

  free(buffer: WebGpuBuffer): void {
    const { slab } = buffer;
    if (slab === undefined) return;
    buffer.slab = undefined;
    while (slab.pool.heir !== undefined) slab.pool = slab.pool.heir;
    slab.pool.inUse -= slab.size;
    put(slab);
    if (slab.pool === this.#general) this.#trim();
  }

  /** A pool of its own from here to {@link leave}. */
  enter(): Pool {
    this.#pool = new Pool();
    return this.#pool;
  }

  leave(): void {
    this.#pool = this.#general;
  }

  /** Whether a buffer belongs to the pool that is in force. */
  isCurrent({ slab }: WebGpuBuffer): boolean {
    return slab?.pool === this.#pool;
  }

  /** What a pool has goes to all, now or when it comes back. */
  close(pool: Pool): void {
    pool.heir = this.#general;
    this.#general.held += pool.held;
    this.#general.inUse += pool.inUse;
    for (const slab of [...pool.free.values()].flat()) {
      slab.pool = this.#general;
      put(slab);
    }
    pool.free.clear();
    this.#trim();
  }

  /** Destroys all free slabs. */
  empty(): void {
    this.#shrink(this.#general.inUse);
  }

  /** What the steps before a recording have left becomes its own: they and it are not held side by side. */
  #takeOver(size: number): Slab | undefined {
    if (this.#pool === this.#general) return undefined;
    const slab = this.#general.free.get(size)?.pop();
    if (slab === undefined) return undefined;
    this.#general.held -= size;
    this.#pool.held += size;
    slab.pool = this.#pool;
    return slab;
  }

  #make(size: number): Slab {
    const gpu = this.options.create(size);
    this.#held += size;
    this.#pool.held += size;
    return new Slab(gpu, size, this.#pool);
  }

  #trim(): void {
    const peak = Math.max(...this.#peaks);
    const limit = peak * (1 + SPARE_SHARE) + SPARE_BYTES;
    if (this.#general.held > limit) this.#shrink(peak);
  }

  /** Destroys free slabs until no more than `target` bytes are held outside of recordings, or none is left. */
  #shrink(target: number): void {
    for (const [size, slabs] of this.#general.free) {
      while (this.#general.held > target) {
        // From the front: those freed longest ago.
        const slab = slabs.shift();
        if (slab === undefined) break;
        this.#held -= size;
        this.#general.held -= size;
        this.options.destroy(slab.gpu);
      }
      if (slabs.length === 0) this.#general.free.delete(size);
    }
  }
}

function put(slab: Slab): void {
  const { free } = slab.pool;
  const slabs = free.get(slab.size);
  if (slabs !== undefined) slabs.push(slab);
  else free.set(slab.size, [slab]);
}
