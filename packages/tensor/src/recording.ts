// Recording for backends whose kernels are plain functions: calls go to a list instead of running, and are run again in order, over
// buffers that stay where they are. A backend with a device of its own has a better way.
// Knows the Backend interface. Knows no Tensor and no kernel.

import type { Recording } from "./backend.js";
import { BackendError, LifetimeError } from "./errors.js";
import type { BackendBuffer } from "./view.js";

interface Memory {
  allocate(bytes: number): BackendBuffer;
  free(buffer: BackendBuffer): void;
}

/** The memory of one recording: what is freed in it is used again in it, and nothing leaves it before it is disposed of. */
class Arena {
  readonly calls: (() => void)[] = [];
  /** Free buffers by the bytes that were asked for, and those of each buffer. */
  readonly #free = new Map<number, BackendBuffer[]>();
  readonly sizes = new Map<BackendBuffer, number>();

  constructor(readonly memory: Memory) {}

  allocate(bytes: number): BackendBuffer {
    const found = this.#free.get(bytes)?.pop() ?? this.memory.allocate(bytes);
    this.sizes.set(found, bytes);
    return found;
  }

  free(buffer: BackendBuffer): void {
    const bytes = this.sizes.get(buffer) ?? 0;
    const list = this.#free.get(bytes);
    if (list === undefined) this.#free.set(bytes, [buffer]);
    else list.push(buffer);
  }

  /** Gives back what nobody holds; the rest is an ordinary buffer from here on. */
  dispose(): void {
    for (const list of this.#free.values()) for (const buffer of list) this.memory.free(buffer);
    this.#free.clear();
  }
}

/** Stands between a backend and its memory and kernels. */
export class CallRecorder {
  #open: Arena | undefined;
  readonly #owners = new Map<BackendBuffer, Arena>();

  /** @param name of the backend, for messages */
  constructor(
    readonly name: string,
    readonly memory: Memory,
  ) {}

  get recording(): boolean {
    return this.#open !== undefined;
  }

  /** @throws BackendError while calls are recorded */
  refuse(what: string): void {
    if (this.#open === undefined) return;
    throw new BackendError(`${this.name}: ${what} while kernel calls are recorded; do it before, or after.`);
  }

  allocate(bytes: number): BackendBuffer {
    if (this.#open === undefined) return this.memory.allocate(bytes);
    const buffer = this.#open.allocate(bytes);
    this.#owners.set(buffer, this.#open);
    return buffer;
  }

  free(buffer: BackendBuffer): void {
    const owner = this.#owners.get(buffer);
    if (owner === undefined) this.memory.free(buffer);
    else owner.free(buffer);
  }

  /** The same kernels, or functions that run them, which are listed instead of run while calls are recorded. */
  wrap<Functions extends object>(kernels: Functions): Functions {
    type AnyKernel = (...args: unknown[]) => void;
    const wrapped = Object.entries(kernels as Record<string, AnyKernel>).map(([name, kernel]) => {
      const call: AnyKernel = (...args) => {
        if (this.#open === undefined) kernel(...args);
        else this.#open.calls.push(() => kernel(...args));
      };
      return [name, call];
    });
    return Object.fromEntries(wrapped) as Functions;
  }

  record(fn: () => void): Recording {
    this.refuse("a recording was begun");
    const arena = new Arena(this.memory);
    this.#open = arena;
    try {
      fn();
    } catch (error) {
      this.#open = undefined;
      this.#close(arena);
      throw error;
    }
    this.#open = undefined;
    let disposed = false;
    return {
      replay: () => {
        if (disposed) throw new LifetimeError(`${this.name}: the recording was disposed.`);
        this.refuse("a recording was replayed");
        for (const call of arena.calls) call();
      },
      dispose: () => {
        if (disposed) return;
        disposed = true;
        this.#close(arena);
      },
    };
  }

  #close(arena: Arena): void {
    arena.dispose();
    for (const buffer of arena.sizes.keys()) this.#owners.delete(buffer);
    arena.calls.length = 0;
  }
}
