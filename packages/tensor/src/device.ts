// A device: a backend with the tensors that live on it. Makes tensors; counts them.
// Knows the Backend interface. Knows no backend by name, no op and no tape.

import type { Backend, Recording } from "./backend.js";
import { bytesPerElement, type DType, type HostTensor, type TypedArray } from "./dtype.js";
import { BackendError, DTypeError, formatShape, LifetimeError, ShapeError, ValueError } from "./errors.js";
import { f32ToBf16Array, f32ToF16Array } from "./half.js";
import { checkShape, contiguousStrides, sizeOf } from "./layout.js";
import { type Leak, LeakDetector } from "./leaks.js";
import { keep, scope, visitDisposables } from "./scope.js";
import { holdUsed, type MemoryUse, Storage } from "./storage.js";
import { Tensor } from "./tensor.js";

/** Numbers, or arrays of them to any depth; all arrays of one depth have one length. */
export type Nested = number | readonly Nested[];

let defaultDevice: Device | undefined;

export interface DeviceOptions {
  /** Called for each tensor that was collected as garbage without having been disposed of. Slow; for finding leaks. */
  readonly onLeak?: (leak: Leak) => void;
}

/** A computation that was recorded, to be run again. */
export interface Recorded<T> {
  /** What the recorded function returned; its tensors hold what the last replay gave, and belong to the recording. */
  readonly result: T;
  /** Enqueues the computation. Inputs are whatever the tensors that it uses hold by then. */
  replay(): void;
  /** Frees what it holds, the result included. */
  dispose(): void;
}

export class Device {
  readonly #use: MemoryUse = { tensors: 0, buffers: 0, bytes: 0, peakBytes: 0 };
  #disposed = false;
  /** Internal: watches tensors where leaks are looked for. */
  readonly leaks: LeakDetector | undefined;

  /** The first device made, while it lives, is the one that `tensor(...)` uses. */
  constructor(
    readonly backend: Backend,
    { onLeak }: DeviceOptions = {},
  ) {
    this.leaks = onLeak && new LeakDetector(onLeak);
    defaultDevice ??= this;
  }

  get name(): string {
    return this.backend.name;
  }

  /** A tensor with arbitrary content. @throws DTypeError, ShapeError, BackendError (no memory) */
  empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
    if (this.#disposed) throw new LifetimeError(`${this.name}: the device was disposed.`);
    checkShape("tensor", shape);
    if (!this.backend.dtypes.has(dtype)) {
      throw new DTypeError(
        `${this.name}: has no ${dtype} tensors; it has ${[...this.backend.dtypes].join(", ")}.${dtype === "f64" ? " f64 is for the reference backend." : ""}`,
      );
    }
    const bytes = sizeOf(shape) * bytesPerElement[dtype];
    if (!Number.isSafeInteger(bytes)) throw new ShapeError(`tensor: ${formatShape(shape)} has too many elements.`);
    try {
      const storage = new Storage(this.backend, this.#use, bytes);
      return new Tensor(this, storage, dtype, { shape, strides: contiguousStrides(shape), offset: 0 });
    } catch (error) {
      if (!(error instanceof BackendError)) throw error;
      throw new BackendError(`a tensor of ${formatShape(shape)} ${dtype}: ${error.message}`, { cause: error });
    }
  }

  full(shape: readonly number[], value: number, dtype: DType = "f32"): Tensor {
    const out = this.empty(shape, dtype);
    if (out.size > 0) this.backend.kernels.fill(out.view(), value);
    return out;
  }

  zeros(shape: readonly number[], dtype: DType = "f32"): Tensor {
    return this.full(shape, 0, dtype);
  }

  ones(shape: readonly number[], dtype: DType = "f32"): Tensor {
    return this.full(shape, 1, dtype);
  }

  /** (n,) i32: 0, 1, … n - 1. */
  arange(n: number): Tensor {
    const out = this.empty([n], "i32");
    if (n > 0) this.backend.kernels.iota(out.view());
    return out;
  }

  /** Numbers or nested arrays of them, copied to the device. @throws ShapeError where rows differ in length */
  tensor(values: Nested, dtype: DType = "f32"): Tensor {
    const shape: number[] = [];
    for (let level: Nested = values; typeof level !== "number"; level = level[0]) {
      shape.push(level.length);
      if (level.length === 0) break;
    }
    const flat: number[] = [];
    flatten(values, shape, 0, flat);
    return this.fromHost({ dtype, shape, data: encode(flat, dtype) });
  }

  /** Elements in row-major order, copied to the device; f32 values are converted where `dtype` is another float. */
  from(data: TypedArray | readonly number[], shape: readonly number[], dtype: DType = "f32"): Tensor {
    if (data.length !== sizeOf(shape)) {
      throw new ShapeError(`tensor: ${data.length} elements were given for ${formatShape(shape)}.`);
    }
    return this.fromHost({ dtype, shape, data: encode(data, dtype) });
  }

  /** A host tensor, bit for bit. */
  fromHost({ dtype, shape, data }: HostTensor): Tensor {
    const out = this.empty(shape, dtype);
    out.write(data);
    return out;
  }

  /** Live tensors, buffers and bytes; the peak counts from the last {@link resetPeak}. */
  memory(): MemoryUse {
    return { ...this.#use };
  }

  resetPeak(): void {
    this.#use.peakBytes = this.#use.bytes;
  }

  /** Whether {@link record} works. */
  get canRecord(): boolean {
    return this.backend.record !== undefined;
  }

  /**
   * Records what `fn` computes instead of computing it. Each replay computes it again, over the same memory: tensors that `fn` uses
   * from outside are kept alive, and are where new inputs are written (`write`, `assign`) before a replay. In `fn` nothing is read
   * or written from the host, and what depends on a host value is as it was when it was recorded. Intermediates are freed, and
   * what `fn` returns lives with the recording.
   * @throws BackendError where the backend cannot record, and where `fn` reads, writes or records
   */
  record<T>(fn: () => T): Recorded<T> {
    const { backend } = this;
    if (backend.record === undefined) throw new BackendError(`${this.name}: the backend cannot record kernel calls.`);
    let recording: Recording | undefined;
    let result: { readonly value: T } | undefined;
    const free = () => visitDisposables(result?.value, (tensor) => tensor.dispose());
    const held = holdUsed(() => {
      recording = backend.record?.(() => {
        result = { value: scope(fn) };
        visitDisposables(result.value, keep);
      });
    });
    return {
      result: (result as unknown as { readonly value: T }).value,
      replay: () => {
        recording?.replay();
        held.replayed();
      },
      dispose: () => {
        free();
        recording?.dispose();
        held.release();
      },
    };
  }

  /** Waits until all that was asked for has been computed. */
  async synchronize(): Promise<void> {
    await this.backend.synchronize();
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    if (defaultDevice === this) defaultDevice = undefined;
    await this.backend.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

function flatten(values: Nested, shape: readonly number[], depth: number, out: number[]): void {
  if (typeof values === "number") {
    if (depth !== shape.length) throw new ShapeError("tensor: numbers and arrays stand side by side.");
    out.push(values);
    return;
  }
  if (values.length !== shape[depth]) {
    throw new ShapeError(
      `tensor: an array of ${values.length} stands beside one of ${shape[depth]} at depth ${depth}.`,
    );
  }
  for (const value of values) flatten(value, shape, depth + 1, out);
}

/** Numbers in the element type's own array. Arrays that have it already are passed through. */
function encode(data: TypedArray | readonly number[], dtype: DType): TypedArray {
  switch (dtype) {
    case "bf16":
      return data instanceof Uint16Array ? data : f32ToBf16Array(data);
    case "f16":
      return data instanceof Uint16Array ? data : f32ToF16Array(data);
    case "f32":
      return data instanceof Float32Array ? data : Float32Array.from(data);
    case "f64":
      return data instanceof Float64Array ? data : Float64Array.from(data);
    case "i32":
    case "u8": {
      const ArrayType = dtype === "i32" ? Int32Array : Uint8Array;
      if (data instanceof ArrayType) return data;
      const out = ArrayType.from(data);
      for (let i = 0; i < out.length; i++) {
        if (out[i] !== data[i]) throw new ValueError(`tensor: element ${i}, ${data[i]}, is no ${dtype}.`);
      }
      return out;
    }
  }
}

/** The device that `tensor(...)` uses: the one set, or the first one made that still lives. */
export function currentDevice(): Device {
  if (defaultDevice === undefined) {
    throw new LifetimeError(
      "tensor: there is no device yet; make one first, for example `const device = reference()`.",
    );
  }
  return defaultDevice;
}

/** Makes `device` the one that `tensor(...)` uses. */
export function setCurrentDevice(device: Device): void {
  defaultDevice = device;
}

/** Numbers or nested arrays of them, on the current device or on `device`. */
export function tensor(values: Nested, options: { readonly dtype?: DType; readonly device?: Device } = {}): Tensor {
  return (options.device ?? currentDevice()).tensor(values, options.dtype);
}
