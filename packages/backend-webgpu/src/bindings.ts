// Layer: WebGPU execution. What dispatches bind: for each set of buffers and uniforms that was met one bind group, whose uniforms have a
// place of their own. A step that comes again finds all of them, and writes nothing. Numbers that change with each step do not add up:
// the groups of one set of buffers are so many at most, and then the oldest is given the new numbers.
// Knows bind groups and GPU buffers. Knows no tensor, no queue's order and no kernel.

import { type Slab, usage } from "./memory.js";
import type { BindingLayout } from "./pipelines.js";

/** Bytes of a dispatch's uniforms: the alignment of their places. */
export const UNIFORM_BYTES = 256;
const UNIFORM_WORDS = UNIFORM_BYTES / 4;

/** Places of a buffer of uniforms. */
const PLACES = 256;

/** Groups of the same buffers after which the oldest is used again: more than differ within a step. */
const MOST_ALIKE = 16;

/** A part of a slab, in bytes. */
export interface BoundRange {
  readonly slab: Slab;
  readonly from: number;
  readonly to: number;
}

/** What stands for a batch of commands, and keeps nothing of it. */
export interface Sending {
  /** Whether they have gone. */
  readonly sent: boolean;
}

interface Entry {
  readonly group: GPUBindGroup;
  /** Where its uniforms lie. */
  readonly place: GPUBufferBinding;
  words: Uint32Array;
  next: Entry | undefined;
  /** The last batch that binds it. */
  usedBy: Sending;
}

/** Of commands that are sent again and again. */
const recorded: Sending = { sent: false };

/** FNV-1a, a word at a time. */
function hashOf(words: Uint32Array, count: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < count; i++) hash = Math.imul(hash ^ words[i], 0x01000193);
  // The low bits of a product know nothing of the high bits of its factors.
  return hash ^ (hash >>> 15);
}

function beginAlike(a: Uint32Array, b: Uint32Array, count: number): boolean {
  for (let i = 0; i < count; i++) if (a[i] !== b[i]) return false;
  return true;
}

export class Bindings {
  readonly #entries = new Map<number, Entry>();
  /** Groups by the hash of their layout and buffers, the oldest first. */
  readonly #alike = new Map<number, Entry[]>();
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

  /**
   * @param put writes the uniforms from place `at` on, as words or as floats, and says where they end
   * @param batch what binds the group; nothing else may after it was sent. Without one, a group stays as it is
   */
  group(
    layout: BindingLayout,
    ranges: readonly BoundRange[],
    put: (words: Uint32Array, floats: Float32Array, at: number) => number,
    batch: Sending = recorded,
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
    for (let entry = this.#entries.get(hash); entry !== undefined; entry = entry.next) {
      if (entry.words.length === end && beginAlike(entry.words, key, end)) {
        entry.usedBy = batch;
        return entry.group;
      }
    }
    const alikeHash = hashOf(key, uniforms);
    let alike = this.#alike.get(alikeHash);
    if (alike === undefined) {
      alike = [];
      this.#alike.set(alikeHash, alike);
    }
    const words = key.slice(0, end);
    const entry = this.#takeOldest(alike, words, uniforms) ?? this.#make(layout, ranges, words.subarray(uniforms));
    entry.words = words;
    entry.usedBy = batch;
    entry.next = this.#entries.get(hash);
    this.#entries.set(hash, entry);
    alike.push(entry);
    return entry.group;
  }

  /** Gives new uniforms to the oldest group of the same buffers, where there are many and what binds it is on its way. */
  #takeOldest(alike: Entry[], words: Uint32Array<ArrayBuffer>, uniforms: number): Entry | undefined {
    const [oldest] = alike;
    if (alike.length < MOST_ALIKE || !oldest.usedBy.sent || !beginAlike(oldest.words, words, uniforms))
      return undefined;
    alike.shift();
    this.#forget(oldest);
    const { buffer, offset } = oldest.place;
    this.device.queue.writeBuffer(buffer, offset as number, words, uniforms);
    return oldest;
  }

  /** Takes an entry out of those that are found by their hash. */
  #forget(entry: Entry): void {
    const hash = hashOf(entry.words, entry.words.length);
    let before = this.#entries.get(hash);
    if (before === entry) {
      if (entry.next === undefined) this.#entries.delete(hash);
      else this.#entries.set(hash, entry.next);
      return;
    }
    while (before !== undefined && before.next !== entry) before = before.next;
    if (before !== undefined) before.next = entry.next;
  }

  #make(layout: BindingLayout, ranges: readonly BoundRange[], uniforms: Uint32Array): Entry {
    const place = this.#place(uniforms);
    const group = this.device.createBindGroup({
      layout: layout.gpu,
      entries: [
        { binding: 0, resource: place },
        ...ranges.map(({ slab, from, to }, i) => ({
          binding: i + 1,
          resource: { buffer: slab.gpu, offset: from, size: to - from },
        })),
      ],
    });
    this.size++;
    return { group, place, words: uniforms, next: undefined, usedBy: recorded };
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
