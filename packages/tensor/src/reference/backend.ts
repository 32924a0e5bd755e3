// Layer: reference backend. Memory in ArrayBuffers and kernels in plain loops: the oracle, on any JavaScript engine.
// Half-precision views are widened to f32 around each kernel, so that no kernel knows of them.
// Knows the kernels. Knows no Tensor and no tape.

import type { Backend, Kernels, Recording } from "../backend.js";
import { type DType, dtypes } from "../dtype.js";
import { BackendError, LifetimeError } from "../errors.js";
import { bf16ToF32Array, f16ToF32Array, f32ToBf16Array, f32ToF16Array } from "../half.js";
import { CallRecorder } from "../recording.js";
import type { BackendBuffer, View } from "../view.js";
import { ReferenceBuffer } from "./buffer.js";
import { binary, compare, copy, fill, iota, unary, where } from "./elementwise.js";
import { gather, random, scatterAdd } from "./indexing.js";
import { matmul } from "./matmul.js";
import { argmax, cumsum, reduce } from "./reduce.js";
import { routines } from "./routines.js";

const plainKernels: Kernels = {
  unary,
  binary,
  compare,
  where,
  reduce,
  argmax,
  cumsum,
  matmul,
  gather,
  scatterAdd,
  copy,
  fill,
  iota,
  random,
  ...routines,
};

function isView(value: unknown): value is View {
  return typeof value === "object" && value !== null && "buffer" in value && "strides" in value;
}

/** Replaces every bf16 or f16 view in a kernel's arguments by an f32 copy of its buffer; remembers both. */
function widen(value: unknown, seen: Map<BackendBuffer, { view: View; wide: Float32Array }>): unknown {
  if (isView(value)) {
    const { dtype, buffer } = value;
    if ((dtype !== "bf16" && dtype !== "f16") || !(buffer instanceof ReferenceBuffer)) return value;
    let entry = seen.get(buffer);
    if (entry === undefined) {
      const bits = new Uint16Array(buffer.memory);
      entry = { view: value, wide: dtype === "bf16" ? bf16ToF32Array(bits) : f16ToF32Array(bits) };
      seen.set(buffer, entry);
    }
    return { ...value, dtype: "f32", buffer: new ReferenceBuffer(entry.wide.buffer as ArrayBuffer) };
  }
  if (Array.isArray(value)) return value.map((item) => widen(item, seen));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, widen(item, seen)]));
  }
  return value;
}

function isHalf(value: unknown): boolean {
  if (isView(value)) return value.dtype === "bf16" || value.dtype === "f16";
  if (Array.isArray(value)) return value.some(isHalf);
  return typeof value === "object" && value !== null && Object.values(value).some(isHalf);
}

/** A kernel that also takes half-precision views: widened before, narrowed again after. */
function withHalves<Args extends unknown[]>(kernel: (...args: Args) => void): (...args: Args) => void {
  return (...args) => {
    if (!args.some(isHalf)) return kernel(...args);
    const seen = new Map<BackendBuffer, { view: View; wide: Float32Array }>();
    kernel(...(widen(args, seen) as Args));
    for (const [buffer, { view, wide }] of seen) {
      const narrow = view.dtype === "bf16" ? f32ToBf16Array(wide) : f32ToF16Array(wide);
      new Uint16Array((buffer as ReferenceBuffer).memory).set(narrow);
    }
  };
}

type AnyKernel = (...args: unknown[]) => void;

const allKernels = Object.fromEntries(
  Object.entries(plainKernels).map(([name, kernel]) => [name, withHalves(kernel as AnyKernel)]),
) as unknown as Kernels;

export interface ReferenceOptions {
  /** Fills fresh memory with NaN bit patterns, to find kernels that rely on zeros. For tests. */
  readonly poison?: boolean;
}

/** Freed buffers kept for reuse, at most. */
const POOL_BYTES = 256 * 2 ** 20;

export class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly device = "plain TypeScript, one thread";
  readonly dtypes: ReadonlySet<DType> = new Set(dtypes);
  readonly holdsData = true;
  readonly kernels: Kernels;
  readonly #recorder: CallRecorder;
  readonly #pool = new Map<number, ReferenceBuffer[]>();
  #pooledBytes = 0;
  #liveBytes = 0;
  #disposed = false;

  constructor(private readonly options: ReferenceOptions = {}) {
    this.#recorder = new CallRecorder(this.name, {
      allocate: (bytes) => this.#take(bytes),
      free: (buffer) => this.#giveBack(buffer),
    });
    this.kernels = this.#recorder.wrap(allKernels);
  }

  get recording(): boolean {
    return this.#recorder.recording;
  }

  record(fn: () => void): Recording {
    this.#check();
    return this.#recorder.record(fn);
  }

  allocate(bytes: number): BackendBuffer {
    this.#check();
    return this.#recorder.allocate(bytes);
  }

  free(buffer: BackendBuffer): void {
    this.#recorder.free(buffer);
  }

  #take(bytes: number): ReferenceBuffer {
    const size = Math.ceil(bytes / 8) * 8;
    const pooled = this.#pool.get(size)?.pop();
    if (pooled !== undefined) this.#pooledBytes -= size;
    const buffer = pooled ?? this.#fresh(size);
    this.#liveBytes += size;
    if (this.options.poison) new Uint8Array(buffer.memory).fill(0xff);
    return buffer;
  }

  #giveBack(buffer: BackendBuffer): void {
    if (!(buffer instanceof ReferenceBuffer) || this.#disposed) return;
    this.#liveBytes -= buffer.bytes;
    if (this.#pooledBytes + buffer.bytes > POOL_BYTES) return;
    this.#pooledBytes += buffer.bytes;
    const list = this.#pool.get(buffer.bytes);
    if (list === undefined) this.#pool.set(buffer.bytes, [buffer]);
    else list.push(buffer);
  }

  write(buffer: BackendBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#check();
    this.#recorder.refuse("a tensor was written from the host");
    new Uint8Array((buffer as ReferenceBuffer).memory).set(bytes, byteOffset);
  }

  async read(buffer: BackendBuffer, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#check();
    this.#recorder.refuse("a tensor was read");
    return new Uint8Array((buffer as ReferenceBuffer).memory.slice(byteOffset, byteOffset + byteLength));
  }

  async synchronize(): Promise<void> {
    this.#check();
  }

  heldBytes(): number {
    return this.#liveBytes + this.#pooledBytes;
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#pool.clear();
  }

  #fresh(size: number): ReferenceBuffer {
    try {
      return new ReferenceBuffer(new ArrayBuffer(size));
    } catch (error) {
      throw new BackendError(`out of memory: ${size.toLocaleString("en")} bytes could not be had.`, { cause: error });
    }
  }

  #check(): void {
    if (this.#disposed) throw new LifetimeError("reference: the backend was disposed.");
  }
}
