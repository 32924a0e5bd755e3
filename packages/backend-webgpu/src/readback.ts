// Layer: WebGPU memory. Reading back: a copy into a buffer that the host can map, in line with the commands before it; what is
// enqueued after it is not waited for.
// Knows GPU buffers and the stream. Knows no tensor.

import { bucketOf, usage } from "./memory.js";
import type { Stream } from "./stream.js";

/** Free mappable buffers that are kept, in bytes. */
const MOST_KEPT = 64 * 2 ** 20;

/** GPUMapMode.READ */
const READ = 1;

export class Readback {
  readonly #free = new Map<number, GPUBuffer[]>();
  #kept = 0;
  #held = 0;

  constructor(
    private readonly device: GPUDevice,
    private readonly stream: Stream,
  ) {}

  get heldBytes(): number {
    return this.#held;
  }

  async read(from: GPUBuffer, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const first = Math.floor(byteOffset / 4) * 4;
    const bytes = Math.ceil((byteOffset + byteLength) / 4) * 4 - first;
    const size = bucketOf(bytes);
    const to = this.#take(size);
    try {
      await this.stream.copy({ from, fromOffset: first, to, bytes });
      await to.mapAsync(READ, 0, bytes);
      const out = new Uint8Array(byteLength);
      out.set(new Uint8Array(to.getMappedRange(0, bytes), byteOffset - first, byteLength));
      to.unmap();
      this.#give(to, size);
      return out;
    } catch (error) {
      this.#held -= size;
      to.destroy();
      throw error;
    }
  }

  close(): void {
    for (const buffer of [...this.#free.values()].flat()) buffer.destroy();
    this.#free.clear();
  }

  #take(size: number): GPUBuffer {
    const free = this.#free.get(size)?.pop();
    if (free !== undefined) {
      this.#kept -= size;
      return free;
    }
    const made = this.device.createBuffer({ label: "read", size, usage: usage.mapRead | usage.copyTarget });
    this.#held += size;
    return made;
  }

  #give(buffer: GPUBuffer, size: number): void {
    if (this.#kept + size > MOST_KEPT) {
      this.#held -= size;
      buffer.destroy();
      return;
    }
    this.#kept += size;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [buffer]);
    else list.push(buffer);
  }
}
