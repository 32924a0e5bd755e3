// Layer: CUDA backend. Memory of the device, kept for reuse: pieces of large segments, the smallest that fits first, neighbours joined
// again when freed. All kernels run in one order, so a piece may be used again as soon as it is freed.
// Knows sizes and addresses. Knows no view, no kernel and no driver.

import { type BackendBuffer, BackendError } from "@diffmamba/tensor";

/** Where segments come from. */
export interface MemorySource {
  /** @returns an address, 0 where there is no memory */
  allocate(bytes: number): number;
  release(address: number): void;
}

export class CudaBuffer implements BackendBuffer {
  constructor(
    readonly bytes: number,
    readonly address: number,
    readonly pool: Pool,
    /** @internal */
    readonly block: Block,
  ) {}
}

/** A piece of a segment; `previous` and `next` are its neighbours there. */
export interface Block {
  address: number;
  bytes: number;
  free: boolean;
  readonly small: boolean;
  previous: Block | undefined;
  next: Block | undefined;
}

/** Every address is a multiple of this, so that vectors and tensor cores may read from it. */
const ALIGNMENT = 512;
/** Pieces up to here come from segments of their own, so that they do not break up the large ones. */
const SMALL = 2 ** 20;
const SMALL_SEGMENT = 2 ** 21;
/** Pieces below this share a segment of {@link MIDDLE_SEGMENT}. */
const MIDDLE = 10 * 2 ** 20;
const MIDDLE_SEGMENT = 20 * 2 ** 20;
const GRANULARITY = 2 ** 21;

const roundUp = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit;

function segmentSize(bytes: number): number {
  if (bytes <= SMALL) return SMALL_SEGMENT;
  return bytes < MIDDLE ? MIDDLE_SEGMENT : roundUp(bytes, GRANULARITY);
}

export interface PoolOptions {
  readonly source: MemorySource;
  /** False: every buffer is a segment of its own, given back when it is freed; slow, for tools that look for stray accesses. */
  readonly reuse: boolean;
  /** Called where the source has no memory; gives back what others keep. */
  readonly onExhausted: () => void;
}

/** Memory that is taken from the system in segments and handed out in pieces. */
export class Pool {
  /** Free pieces by size, then address: small ones, and the others. */
  readonly #small: Block[] = [];
  readonly #large: Block[] = [];
  /** First pieces of all segments. */
  readonly #segments = new Set<Block>();
  #held = 0;
  #live = 0;
  #onClosed: (() => void) | undefined;

  constructor(private readonly options: PoolOptions) {}

  /** Bytes held from the system. */
  get heldBytes(): number {
    return this.#held;
  }

  /** Bytes in use. */
  get liveBytes(): number {
    return this.#live;
  }

  /** @throws BackendError when there is none left, also after what is kept was given back */
  allocate(asked: number): CudaBuffer {
    const bytes = Math.max(ALIGNMENT, roundUp(asked, ALIGNMENT));
    const block = (this.options.reuse ? this.#take(bytes) : undefined) ?? this.#fresh(bytes, asked);
    block.free = false;
    const rest = block.bytes - bytes;
    // What is left of a large piece is kept apart only where something large fits into it.
    if (rest >= (block.small ? ALIGNMENT : SMALL)) this.#split(block, bytes);
    this.#live += block.bytes;
    return new CudaBuffer(asked, block.address, this, block);
  }

  free({ block }: CudaBuffer): void {
    if (block.free) throw new BackendError("cuda: memory was freed twice.");
    this.#live -= block.bytes;
    block.free = true;
    let joined = block;
    if (block.next?.free) this.#join(block, block.next);
    if (block.previous?.free) {
      joined = block.previous;
      this.#remove(joined);
      this.#absorb(joined, block);
    }
    this.#insert(joined);
    if (!this.options.reuse) this.trim();
    this.#endWhenIdle();
  }

  /** Gives back all segments of which nothing is in use. @returns their bytes */
  trim(): number {
    let given = 0;
    for (const block of this.#segments) {
      if (!block.free || block.next !== undefined) continue;
      this.#remove(block);
      this.#segments.delete(block);
      this.options.source.release(block.address);
      given += block.bytes;
    }
    this.#held -= given;
    return given;
  }

  /** Everything goes back as soon as nothing of it is in use; `done` is called then. */
  close(done: () => void = () => undefined): void {
    this.#onClosed = done;
    this.#endWhenIdle();
  }

  /** Gives all segments back, also those in use. Nothing may be freed afterwards. */
  releaseAll(): void {
    for (const { address } of this.#segments) this.options.source.release(address);
    this.#segments.clear();
    this.#held = 0;
  }

  #endWhenIdle(): void {
    if (this.#onClosed === undefined || this.#live > 0) return;
    this.trim();
    this.#onClosed();
  }

  #list(block: Block): Block[] {
    return block.small ? this.#small : this.#large;
  }

  /** Where a piece of a size and address lies, or would, in a list. */
  #place(list: readonly Block[], bytes: number, address: number): number {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const one = list[middle];
      if (one.bytes < bytes || (one.bytes === bytes && one.address < address)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #insert(block: Block): void {
    const list = this.#list(block);
    list.splice(this.#place(list, block.bytes, block.address), 0, block);
  }

  #remove(block: Block): void {
    const list = this.#list(block);
    list.splice(this.#place(list, block.bytes, block.address), 1);
  }

  #take(bytes: number): Block | undefined {
    const list = bytes <= SMALL ? this.#small : this.#large;
    const at = this.#place(list, bytes, 0);
    if (at === list.length) return undefined;
    return list.splice(at, 1)[0];
  }

  #split(block: Block, bytes: number): void {
    const rest: Block = {
      address: block.address + bytes,
      bytes: block.bytes - bytes,
      free: true,
      small: block.small,
      previous: block,
      next: block.next,
    };
    if (block.next) block.next.previous = rest;
    block.next = rest;
    block.bytes = bytes;
    this.#insert(rest);
  }

  /** A free neighbour from the list becomes part of the piece before it. */
  #join(block: Block, next: Block): void {
    this.#remove(next);
    this.#absorb(block, next);
  }

  #absorb(block: Block, next: Block): void {
    block.bytes += next.bytes;
    block.next = next.next;
    if (next.next) next.next.previous = block;
  }

  #fresh(bytes: number, asked: number): Block {
    const { source, reuse, onExhausted } = this.options;
    const size = reuse ? segmentSize(bytes) : bytes;
    let address = source.allocate(size);
    if (address === 0) {
      onExhausted();
      address = source.allocate(size);
    }
    if (address === 0) {
      throw new BackendError(
        `out of memory: ${grouped(asked)} bytes could not be had on the device; ${grouped(this.#live)} are in use, ` +
          `${grouped(this.#held)} held.`,
      );
    }
    this.#held += size;
    const small = reuse && bytes <= SMALL;
    const block: Block = { address, bytes: size, free: true, small, previous: undefined, next: undefined };
    this.#segments.add(block);
    return block;
  }
}

/** 1234567 as "1,234,567". */
function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}
