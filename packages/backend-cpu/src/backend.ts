// The CPU backend: native kernels behind the Backend interface.
// Knows packing and memory. Knows no Tensor and no arithmetic.

import {
  type Backend,
  type BackendBuffer,
  BackendError,
  CallRecorder,
  type DType,
  type Kernels,
  LifetimeError,
  type Recording,
  ValueError,
} from "@diffmamba/tensor";
import type { Addon } from "./addon.js";
import { withHalves } from "./half.js";
import { createKernels } from "./kernels.js";
import { type CpuBuffer, Memory } from "./memory.js";
import { type KernelName, kernelNames, PackedCalls, Packer } from "./pack.js";

export interface CpuBackendOptions {
  readonly threads: number;
  /** Bytes that may be held at once. */
  readonly memoryLimit: number;
}

export class CpuBackend implements Backend {
  readonly name = "cpu";
  readonly device: string;
  readonly dtypes: ReadonlySet<DType> = new Set(["f32", "bf16", "f16", "i32", "u8"]);
  readonly holdsData = true;
  /** A token of a small model is mostly the work of launching; a training step is not, and would hold its memory between steps. */
  readonly prefersRecording = "decoding";
  readonly kernels: Kernels;
  readonly #memory: Memory;
  readonly #packer: Packer;
  readonly #recorder: CallRecorder;
  /** What is recorded, where anything is; and what puts a list into the recording. */
  #calls: PackedCalls | undefined;
  readonly #replay: (calls: PackedCalls) => void;
  #disposed = false;

  constructor(
    private readonly addon: Addon,
    private readonly options: CpuBackendOptions,
  ) {
    const { threads } = options;
    if (!addon.start(threads)) throw new BackendError(`cpu: ${threads} threads could not be started; ask for fewer.`);
    const { isa } = addon.describe();
    this.device = `${isa}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
    this.#memory = new Memory(addon, options.memoryLimit);
    this.#packer = new Packer(() => undefined);
    const kernels = createKernels({
      begin: () => {
        this.#check();
        return this.#packer.begin();
      },
      run: (name) => this.#run(name),
    });
    const memory = {
      allocate: (bytes: number) => this.#memory.allocate(bytes),
      free: (buffer: BackendBuffer) => this.#memory.free(buffer as CpuBuffer),
    };
    const recorder = new CallRecorder(this.name, memory);
    this.#recorder = recorder;
    // What is recorded is calls as they cross: a replay packs and widens nothing, and crosses once.
    this.#replay = recorder.wrap({ replay: (calls: PackedCalls) => this.#runAll(calls) }).replay;
    this.kernels = withHalves(kernels, {
      allocate: (bytes) => recorder.allocate(bytes),
      free: (buffer) => recorder.free(buffer),
      copy: kernels.copy,
    });
  }

  get recording(): boolean {
    return this.#recorder.recording;
  }

  record(fn: () => void): Recording {
    this.#check();
    this.#calls = new PackedCalls();
    try {
      return this.#recorder.record(fn);
    } finally {
      this.#calls = undefined;
    }
  }

  allocate(bytes: number): BackendBuffer {
    this.#check();
    return this.#recorder.allocate(bytes);
  }

  free(buffer: BackendBuffer): void {
    this.#recorder.free(buffer);
    if (this.#disposed) this.#memory.trim();
  }

  write(buffer: BackendBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#check();
    this.#recorder.refuse("a tensor was written from the host");
    this.addon.write(this.#range(buffer, byteOffset, bytes.byteLength), bytes);
  }

  async read(buffer: BackendBuffer, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#check();
    this.#recorder.refuse("a tensor was read");
    const from = this.#range(buffer, byteOffset, byteLength);
    const bytes = new Uint8Array(byteLength);
    this.addon.read(from, bytes);
    return bytes;
  }

  async synchronize(): Promise<void> {
    this.#check();
  }

  heldBytes(): number {
    return this.#memory.heldBytes;
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#memory.trim();
  }

  /** The address of a part of a buffer. */
  #range(buffer: BackendBuffer, byteOffset: number, byteLength: number): number {
    if (!(byteOffset >= 0 && byteLength >= 0 && byteOffset + byteLength <= buffer.bytes)) {
      throw new BackendError(
        `cpu: bytes ${byteOffset} to ${byteOffset + byteLength} are outside a buffer of ${buffer.bytes}.`,
      );
    }
    return (buffer as CpuBuffer).address + byteOffset;
  }

  #run(name: KernelName): void {
    const { array, length } = this.#packer;
    if (this.#calls !== undefined) {
      if (this.#calls.length === 0) this.#replay(this.#calls);
      this.#calls.add(kernelNumbers[name], array.subarray(0, length));
      return;
    }
    // The array may have grown since the last call, and other devices of this thread share theirs.
    this.addon.share(array);
    const error = this.addon.run(kernelNumbers[name], this.options.threads, length);
    if (error !== undefined) throw faultOf(`${name}: ${error}`);
  }

  #runAll({ array, length }: PackedCalls): void {
    this.#check();
    this.addon.share(array);
    const error = this.addon.runAll(length, this.options.threads);
    if (error !== undefined) throw faultOf(error);
  }

  #check(): void {
    if (this.#disposed) throw new LifetimeError("cpu: the backend was disposed.");
  }
}

const kernelNumbers = Object.fromEntries(kernelNames.map((name, i) => [name, i])) as Record<KernelName, number>;

/** The error that a kernel's message, behind its name, stands for. */
function faultOf(message: string): Error {
  return /^\w+: out of memory/.test(message) ? new BackendError(message) : new ValueError(message);
}
