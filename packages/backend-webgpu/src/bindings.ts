// Layer: WebGPU execution. What dispatches bind: for each set of buffers and uniforms that was met one bind group, whose uniforms have a
// place of their own and never change. A step that comes again finds all of them, and writes nothing.
// Knows bind groups and GPU buffers. Knows no tensor, no queue's order and no kernel.

import { type Slab, usage } from "./memory.js";
import type { BindingLayout } from "./pipelines.js";

/** Bytes of a dispatch's uniforms: the alignment of their places. */
export const UNIFORM_BYTES = 256;
const UNIFORM_WORDS = UNIFORM_BYTES / 4;

/** Places of a buffer of uniforms. */
const PLACES = 256;

/** A part of a slab, in bytes. */
export interface BoundRange {
  readonly slab: Slab;
  readonly from: number;
  readonly to: number;
}

interface Entry {
  readonly words: Uint32Array;
  readonly group: GPUBindGroup;
  readonly next: Entry | undefined;
}

/** FNV-1a, a word at a time. */
function hashOf(words: Uint32Array, count: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < count; i++) hash = Math.imul(hash ^ words[i], 0x01000193);
  // The low bits of a product know nothing of the high bits of its factors.
  return hash ^ (hash >>> 15);
}

function isSame(a: Uint32Array, b: Uint32Array, count: number): boolean {
  if (a.length !== count) return false;
  for (let i = 0; i < count; i++) if (a[i] !== b[i]) return false;
  return true;
}

export class Bindings {
  readonly #entries = new Map<number, Entry>();
  readonly #buffers: GPUBuffer[] = [];
  /** Uniforms of the last buffer, on the host until {@link write}. */
  readonly #uniforms = new Uint32Array(PLACES * UNIFORM_WORDS);
  #used = PLACES;
  #written = PLACES;
  /** What makes a group: its layout and buffers, then the uniforms. */
  readonly #key = new Uint32Array(3 * 32 + 1 + UNIFORM_WORDS);
  readonly #floats = new Float32Array(this.#key.buffer);
  size = 0;

  constructor(private readonly device: GPUDevice) {}

  /** @param put writes the uniforms from place `at` on, as words or as floats, and says where they end */
  group(
    layout: BindingLayout,
    ranges: readonly BoundRange[],
    put: (words: Uint32Array, floats: Float32Array, at: number) => number,
  ): GPUBindGroup {
    const key = this.#key;
    let at = 0;
    key[at++] = layout.id;
    for (const { slab, from, to } of ranges) {
      key[at++] = slab.id;
      key[at++] = from / 16;
      key[at++] = to / 16;
    }
    const uniforms = at;
    const end = put(key, this.#floats, at);
    const hash = hashOf(key, end);
    const first = this.#entries.get(hash);
    for (let entry = first; entry !== undefined; entry = entry.next) {
      if (isSame(entry.words, key, end)) return entry.group;
    }
    const group = this.device.createBindGroup({
      layout: layout.gpu,
      entries: [
        { binding: 0, resource: this.#place(key.subarray(uniforms, end)) },
        ...ranges.map(({ slab, from, to }, i) => ({
          binding: i + 1,
          resource: { buffer: slab.gpu, offset: from, size: to - from },
        })),
      ],
    });
    this.#entries.set(hash, { words: key.slice(0, end), group, next: first });
    this.size++;
    return group;
  }

  /** Sends uniforms that are new to the device: before anything that reads them is submitted. */
  write(): void {
    if (this.#written === this.#used) return;
    const [from, to] = [this.#written, this.#used].map((place) => place * UNIFORM_WORDS);
    const last = this.#buffers[this.#buffers.length - 1];
    this.device.queue.writeBuffer(last, 4 * from, this.#uniforms, from, to - from);
    this.#written = this.#used;
  }

  /** The buffers of uniforms, to be destroyed when nothing reads them any more. */
  get buffers(): readonly GPUBuffer[] {
    return this.#buffers;
  }

  #place(words: Uint32Array): GPUBufferBinding {
    if (this.#used === PLACES) {
      this.write();
      const size = PLACES * UNIFORM_BYTES;
      this.#buffers.push(
        this.device.createBuffer({ label: "uniforms", size, usage: usage.uniform | usage.copyTarget }),
      );
      [this.#used, this.#written] = [0, 0];
    }
    const place = this.#used++;
    this.#uniforms.set(words, place * UNIFORM_WORDS);
    const buffer = this.#buffers[this.#buffers.length - 1];
    return { buffer, offset: place * UNIFORM_BYTES, size: UNIFORM_BYTES };
  }
}
