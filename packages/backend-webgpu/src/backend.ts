// Layer: the WebGPU backend behind the Backend interface: memory, reading back, recordings, and what becomes of errors that come late.
// Knows the device's objects. Knows no adapter, no Tensor and no arithmetic.

import {
  type Backend,
  type BackendBuffer,
  BackendError,
  bytesPerElement,
  contiguousStrides,
  type DType,
  type Kernels,
  LifetimeError,
  type Recording,
  sizeOf,
  type View,
} from "@diffmamba/tensor";
import { UNIFORM_BYTES } from "./bindings.js";
import type { Deferred, Dispatch, KernelContext } from "./context.js";
import { Dispatcher } from "./dispatcher.js";
import { createKernels } from "./kernels/index.js";
import { Memory, type Slab, usage, WebGpuBuffer } from "./memory.js";
import { directivesOf, kernelLimitsOf, type WebGpuBackendOptions } from "./options.js";
import { Pipelines } from "./pipelines.js";
import { Readback } from "./readback.js";
import { library } from "./shaders.generated.js";
import { type CommandList, Stream } from "./stream.js";

export class WebGpuBackend implements Backend {
  readonly name = "webgpu";
  readonly device: string;
  readonly dtypes: ReadonlySet<DType> = new Set(["f32", "bf16", "f16", "i32", "u8"]);
  readonly holdsData = true;
  /** A replay encodes commands and does nothing else. */
  readonly prefersRecording = true;
  readonly holdsOutputs: boolean;
  readonly kernels: Kernels;
  /** What kernels run in. */
  readonly context: KernelContext;
  readonly #stream: Stream;
  readonly #memory: Memory;
  readonly #readback: Readback;
  readonly #dispatcher: Dispatcher;
  readonly #temporaries: WebGpuBuffer[] = [];
  /** The kernel that was called last. */
  #op = "";
  #error: BackendError | undefined;
  #disposed = false;
  #recording: { readonly kept: WebGpuBuffer[] } | undefined;
  /** What is put off, and what was freed meanwhile of its buffers. */
  #deferred: Deferred | undefined;
  readonly #held: WebGpuBuffer[] = [];

  constructor(
    /** For who measures it, or has it do more than this backend does. */
    readonly gpu: GPUDevice,
    options: WebGpuBackendOptions,
  ) {
    this.device = options.name;
    this.holdsOutputs = options.holdOutputs ?? false;
    const fail = (error: BackendError) => this.#fail(error);
    gpu.addEventListener("uncapturederror", ({ error }) => {
      const kind = "GPUOutOfMemoryError" in globalThis && error instanceof GPUOutOfMemoryError ? "out of memory: " : "";
      fail(new BackendError(`webgpu: ${this.#last()}${kind}${error.message}`, { cause: error }));
    });
    void gpu.lost.then(({ reason, message }) => {
      if (this.#disposed && reason === "destroyed") return;
      fail(new BackendError(`webgpu: ${this.#last()}the device was lost (${reason}): ${message || "no reason given"}`));
    });
    const { limits } = gpu;
    const kernelLimits = kernelLimitsOf(limits, options);
    this.#stream = new Stream(gpu, { fail });
    this.#memory = new Memory({
      largest: limits.maxBufferSize,
      create: (size) => this.#create(size),
      destroy: (buffer) => this.#stream.destroy(buffer),
    });
    this.#readback = new Readback(gpu, this.#stream);
    this.#dispatcher = new Dispatcher({
      stream: this.#stream,
      pipelines: new Pipelines(gpu, {
        directives: directivesOf(options),
        library,
        uniformBytes: UNIFORM_BYTES,
        fail,
      }),
      limits: kernelLimits,
      gridSize: limits.maxComputeWorkgroupsPerDimension,
      slabOf: (buffer) => this.#slab(buffer),
    });
    this.context = {
      limits: kernelLimits,
      run: (dispatch: Dispatch) => {
        this.#runDeferred();
        this.#dispatcher.run(this.#op, dispatch);
      },
      defer: (deferred) => {
        this.#runDeferred();
        this.#deferred = deferred;
      },
      takeDeferred: (row) => this.#takeDeferred(row),
      temporary: (shape, dtype = "f32") => this.#temporary(shape, dtype),
    };
    this.kernels = this.#named(createKernels(this.context));
  }

  get recording(): boolean {
    return this.#recording !== undefined;
  }

  allocate(bytes: number): BackendBuffer {
    this.#check();
    return this.#memory.allocate(bytes);
  }

  free(buffer: BackendBuffer): void {
    if (this.#disposed) return;
    const own = buffer as WebGpuBuffer;
    if (this.#deferred !== undefined && uses(this.#deferred, own)) this.#held.push(own);
    else this.#giveBack(own);
  }

  #giveBack(buffer: WebGpuBuffer): void {
    // A recording goes on using what was there before it.
    if (this.#recording !== undefined && !this.#memory.isCurrent(buffer)) this.#recording.kept.push(buffer);
    else this.#memory.free(buffer);
  }

  write(buffer: BackendBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#check();
    if (this.#recording !== undefined) throw new BackendError("webgpu: a host write inside a recording.");
    checkRange(buffer, byteOffset, bytes.byteLength);
    if (bytes.byteLength === 0) return;
    this.#runDeferred();
    const slab = this.#slab(buffer);
    const end = byteOffset + bytes.byteLength;
    if (byteOffset % 4 === 0 && (end % 4 === 0 || end === buffer.bytes)) {
      // The last word of a buffer belongs to it whole.
      const whole = bytes.byteLength % 4 === 0 ? bytes : padded(bytes);
      this.#stream.write(slab.gpu, byteOffset, whole, slab.usedBy);
      return;
    }
    // Words that hold other bytes too: by way of a buffer of its own.
    const staging = this.#memory.allocate(bytes.byteLength);
    const between = staging.slab as Slab;
    this.#stream.write(between.gpu, 0, padded(bytes), between.usedBy);
    const view = (of: BackendBuffer, offset: number): View => {
      return { buffer: of, dtype: "u8", shape: [bytes.byteLength], strides: [1], offset };
    };
    this.kernels.copy(view(staging, 0), view(buffer, byteOffset));
    this.#memory.free(staging);
  }

  async read(buffer: BackendBuffer, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#check();
    if (this.#recording !== undefined) throw new BackendError("webgpu: a read inside a recording.");
    checkRange(buffer, byteOffset, byteLength);
    if (byteLength === 0) return new Uint8Array(0);
    this.#runDeferred();
    const slab = this.#slab(buffer);
    slab.usedBy = this.#stream.batch;
    try {
      const bytes = await this.#readback.read(slab.gpu, byteOffset, byteLength);
      await this.#settle();
      return bytes;
    } catch (error) {
      throw this.#late(error);
    }
  }

  async synchronize(): Promise<void> {
    this.#check();
    this.#runDeferred();
    try {
      await this.#stream.submitted();
      await this.gpu.queue.onSubmittedWorkDone();
      await this.#settle();
    } catch (error) {
      throw this.#late(error);
    }
  }

  heldBytes(): number {
    return this.#memory.heldBytes + this.#readback.heldBytes;
  }

  record(fn: () => void): Recording {
    this.#check();
    if (this.#recording !== undefined) throw new BackendError("webgpu: a recording inside a recording.");
    this.#runDeferred();
    const kept: WebGpuBuffer[] = [];
    const pool = this.#memory.enter();
    this.#recording = { kept };
    this.#stream.beginRecording();
    let list: CommandList;
    let failed = true;
    try {
      fn();
      this.#runDeferred();
      failed = false;
    } finally {
      // Of a function that threw.
      this.#deferred = undefined;
      for (const buffer of this.#held.splice(0)) this.#giveBack(buffer);
      list = this.#stream.endRecording();
      this.#recording = undefined;
      this.#memory.leave();
      if (failed) this.#release(list, pool, kept);
    }
    let disposed = false;
    return {
      replay: () => {
        this.#check();
        if (disposed) throw new LifetimeError("webgpu: the recording was disposed.");
        this.#runDeferred();
        this.#stream.replay(list);
      },
      dispose: () => {
        if (disposed || this.#disposed) return;
        disposed = true;
        this.#release(list, pool, kept);
      },
    };
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#stream.submitted().catch(() => undefined);
    this.#stream.close();
    this.#readback.close();
    // Frees all of its buffers.
    this.gpu.destroy();
  }

  #release(list: CommandList, pool: ReturnType<Memory["enter"]>, kept: readonly WebGpuBuffer[]): void {
    for (const buffer of list.bindings.buffers) this.#stream.destroy(buffer);
    this.#memory.close(pool);
    for (const buffer of kept) this.#memory.free(buffer);
  }

  #create(size: number): GPUBuffer {
    const { gpu } = this;
    gpu.pushErrorScope("out-of-memory");
    try {
      return gpu.createBuffer({ size, usage: usage.storage | usage.copySource | usage.copyTarget });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new BackendError(`webgpu: ${this.#last()}no buffer of ${size} bytes: ${reason}`, { cause: error });
    } finally {
      const held = this.#memory?.heldBytes ?? 0;
      const op = this.#last();
      const scope = gpu.popErrorScope().then((error) => {
        if (error === null) return;
        const message = `webgpu: ${op}out of memory: no buffer of ${size} bytes beside the ${held} that are held`;
        this.#fail(new BackendError(`${message}: ${error.message}`, { cause: error }));
      });
      this.#scopes.add(scope);
      void scope.catch(() => undefined).finally(() => this.#scopes.delete(scope));
    }
  }

  /** Buffers of which it is not known yet whether there was memory for them. */
  readonly #scopes = new Set<Promise<void>>();

  /** @throws the first error, once it can be known */
  async #settle(): Promise<void> {
    await Promise.allSettled(this.#scopes);
    this.#check();
  }

  #slab(buffer: BackendBuffer): Slab {
    if (!(buffer instanceof WebGpuBuffer)) {
      throw new BackendError("webgpu: got a view of another backend's memory; copy the tensor to this device first.");
    }
    if (buffer.slab === undefined) throw new LifetimeError("webgpu: the buffer was freed.");
    return buffer.slab;
  }

  #runDeferred(): void {
    const deferred = this.#deferred;
    if (deferred === undefined) return;
    this.#deferred = undefined;
    this.#dispatcher.run(this.#op, deferred.dispatch);
    for (const buffer of this.#held.splice(0)) this.#giveBack(buffer);
  }

  #takeDeferred({ buffer, offset, shape }: View): Deferred | undefined {
    const deferred = this.#deferred;
    if (deferred === undefined) return undefined;
    const { normed } = deferred.row;
    if (normed.buffer !== buffer || normed.offset !== offset || sizeOf(normed.shape) !== sizeOf(shape))
      return undefined;
    this.#deferred = undefined;
    // Until the kernel that takes it over has enqueued it.
    this.#temporaries.push(...this.#held.splice(0));
    return deferred;
  }

  #temporary(shape: readonly number[], dtype: DType): View {
    const buffer = this.#memory.allocate(sizeOf(shape) * bytesPerElement[dtype]);
    this.#temporaries.push(buffer);
    return { buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0 };
  }

  /** Kernels that say who they are, and give back their temporaries. */
  #named(kernels: Kernels): Kernels {
    type AnyKernel = (...args: unknown[]) => void;
    const entries = Object.entries(kernels as unknown as Record<string, AnyKernel>).map(([name, kernel]) => {
      const run: AnyKernel = (...args) => {
        this.#check();
        this.#op = name;
        try {
          kernel(...args);
        } finally {
          if (this.#temporaries.length > 0) {
            for (const buffer of this.#temporaries.splice(0)) this.#giveBack(buffer);
          }
        }
      };
      return [name, run];
    });
    return Object.fromEntries(entries) as unknown as Kernels;
  }

  /** Words for messages: the kernel that was called last. */
  #last(): string {
    return this.#op === "" ? "" : `${this.#op} or before: `;
  }

  /** The first error stays: what comes after follows from it. */
  #fail(error: BackendError): void {
    this.#error ??= error;
  }

  /** An error as a waiting caller gets it: the first one, of which it may be but the consequence. */
  #late(error: unknown): Error {
    if (this.#error !== undefined) return this.#error;
    if (error instanceof BackendError || error instanceof LifetimeError) return error;
    const reason = error instanceof Error ? error.message : String(error);
    return new BackendError(`webgpu: ${this.#last()}${reason}`, { cause: error });
  }

  #check(): void {
    if (this.#disposed) throw new LifetimeError("webgpu: the backend was disposed.");
    if (this.#error !== undefined) throw this.#error;
  }
}

function uses({ dispatch }: Deferred, buffer: BackendBuffer): boolean {
  return Object.values(dispatch.buffers).some(
    (use) => use !== undefined && ("view" in use ? use.view : use).buffer === buffer,
  );
}

function checkRange(buffer: BackendBuffer, byteOffset: number, byteLength: number): void {
  if (byteOffset >= 0 && byteLength >= 0 && byteOffset + byteLength <= buffer.bytes) return;
  throw new BackendError(
    `webgpu: bytes ${byteOffset} to ${byteOffset + byteLength} are outside a buffer of ${buffer.bytes}.`,
  );
}

/** The bytes, with others behind them up to a whole word. */
function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  whole.set(bytes);
  return whole;
}
