// Layer: CUDA backend. One device behind the Backend interface: memory from pools, kernels on one stream, recordings as CUDA graphs.
// Knows the addon and the pools. Knows no Tensor, no kernel's arithmetic and no grid.

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
import { type Addon, callNative } from "./addon.js";
import { ArgumentBuffer } from "./arguments.js";
import { addressOf, type DeviceProperties, i64, type Launch, longs, pointer } from "./context.js";
import { Fuser } from "./fuse.js";
import { HALF_NORM_BYTES } from "./fuseHalves.js";
import { createKernels, keepsTokens, type Product, type ProductContext } from "./kernels/index.js";
import { type CudaBuffer, Pool } from "./memory.js";
import { packProduct, productName } from "./products.js";
import { type KernelTime, totalsOf } from "./profile.js";
import { Reads } from "./reads.js";
import { RecordedLaunches } from "./recordedLaunches.js";

export interface CudaBackendOptions {
  /** The device's number. */
  readonly index: number;
  /** Whether f32 matrix products may round their factors to TF32. */
  readonly tf32: boolean;
  /** Whether outputs that are cheap to make again are held for backward all the same. */
  readonly holdOutputs: boolean;
  /** Whether memory is kept for reuse. */
  readonly reuse: boolean;
  /** Whether matrix products go through cuBLASLt where it is there. */
  readonly blas: boolean;
  /** Whether a token's small kernels are recorded several in one. */
  readonly fuses: boolean;
}

/** Numbers that one launch of `store_table` writes. */
const TABLE_PART = 496;

/** The array of all devices of this thread. */
const packed = new ArgumentBuffer();

export class CudaBackend implements Backend {
  readonly name = "cuda";
  readonly device: string;
  readonly dtypes: ReadonlySet<DType> = new Set(["f32", "bf16", "f16", "i32", "u8"]);
  readonly holdsData = true;
  readonly prefersRecording = true;
  readonly addsBias = true;
  readonly narrowStates = true;
  readonly keepsTokens = keepsTokens;
  readonly roundsRecordedTokens = true;
  /**
   * Mamba-2: few states are kept, and made again within a chunk in the time that reading more would take. Mamba: states as often as its
   * backward pass starts from one, which saves a second pass over the tokens.
   */
  readonly chunkSizes = { ssdScan: 256, selectiveScan: 16 };
  readonly kernels: Kernels;
  /** The device's number on the native side. */
  readonly #handle: number;
  readonly #kernelNumbers = new Map<string, number>();
  readonly #main: Pool;
  /** Where memory comes from now: the pool of the recording that is made, else the main one. */
  #pool: Pool;
  readonly #pools = new Set<Pool>();
  #temporaries: CudaBuffer[] = [];
  readonly #reads: Reads;
  /** While a recording is made. */
  #recorded: RecordedLaunches | undefined;
  #disposed = false;
  /** Names of what is timed, in order, while something is. */
  #timed: string[] | undefined;

  constructor(
    private readonly addon: Addon,
    kernels: Uint8Array,
    readonly properties: DeviceProperties,
    private readonly options: CudaBackendOptions,
  ) {
    const { name, computeCapability, memoryBytes } = properties;
    this.device = `${name}, sm_${computeCapability}, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB`;
    this.#handle = callNative(() => addon.open(options.index, kernels));
    this.#reads = new Reads(addon, this.#handle);
    this.#main = this.#newPool(options.reuse);
    this.#pool = this.#main;
    const context: ProductContext = {
      device: properties,
      tf32: options.tf32,
      launch: (launch) => this.#launch(launch),
      temporary: (shape, dtype) => this.#temporary(shape, dtype),
      clear: (view) => this.#clear(view),
      isUntouched: (view) => this.#recorded?.isUntouched(view) ?? false,
      table: (words) => this.#table(words),
      multiply: (product) => this.#multiply(product),
    };
    this.kernels = this.#guarded(createKernels(context));
  }

  get holdsOutputs(): boolean {
    return this.options.holdOutputs;
  }

  get recording(): boolean {
    return this.#recorded !== undefined;
  }

  /** The file of cuBLASLt, or why there is none. Opens it. */
  blas(): string {
    if (!this.options.blas) return "turned off";
    const found = this.addon.blas(this.#handle);
    return found.missing ?? (found as { file: string }).file;
  }

  allocate(bytes: number): BackendBuffer {
    this.#check();
    return this.#pool.allocate(bytes);
  }

  free(buffer: BackendBuffer): void {
    // After the end all memory has been given back already.
    if (!this.#disposed) (buffer as CudaBuffer).pool.free(buffer as CudaBuffer);
  }

  write(buffer: BackendBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#check();
    this.#refuseWhileRecording("a write from the host");
    const address = this.#range(buffer, byteOffset, bytes.byteLength);
    callNative(() => this.addon.write(this.#handle, address, bytes));
  }

  async read(buffer: BackendBuffer, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#check();
    this.#refuseWhileRecording("a read");
    const address = this.#range(buffer, byteOffset, byteLength);
    const bytes = new Uint8Array(byteLength);
    await this.#reads.into(address, bytes);
    return bytes;
  }

  async synchronize(): Promise<void> {
    this.#check();
    this.#refuseWhileRecording("a wait");
    await this.#reads.into(0, new Uint8Array(0));
  }

  heldBytes(): number {
    let bytes = 0;
    for (const pool of this.#pools) bytes += pool.heldBytes;
    return bytes;
  }

  /**
   * Runs `fn` and takes the time of every kernel and matrix product that it enqueues. Waits for all of them.
   * @returns the total of each name, the longest first @throws BackendError while kernel calls are recorded
   */
  profile(fn: () => void): KernelTime[] {
    this.#check();
    this.#refuseWhileRecording("a profile");
    const names: string[] = [];
    this.addon.startTiming(this.#handle);
    this.#timed = names;
    let times: readonly number[];
    try {
      fn();
    } finally {
      this.#timed = undefined;
      times = callNative(() => this.addon.stopTiming(this.#handle));
    }
    return totalsOf(names, times);
  }

  record(fn: () => void): Recording {
    this.#check();
    this.#refuseWhileRecording("another recording");
    // What earlier steps left is of no more use: a recording has memory of its own.
    this.#main.trim();
    const pool = this.#newPool(true);
    callNative(() => this.addon.beginCapture(this.#handle));
    let halves: CudaBuffer | undefined;
    let failure: unknown;
    try {
      const emit = (launch: Launch) => this.#launchAlone(launch);
      // Tools that watch memory want kernels one by one.
      if (this.options.fuses && this.options.reuse) halves = pool.allocate(HALF_NORM_BYTES);
      const fuser = halves && new Fuser(this.properties.multiprocessors, emit, halves.address);
      this.#recorded = new RecordedLaunches(emit, fuser);
      this.#pool = pool;
      fn();
      this.#recorded.flush();
    } catch (error) {
      failure = error ?? new BackendError("cuda: the recorded function failed.");
    }
    this.#recorded = undefined;
    this.#pool = this.#main;
    if (halves) pool.free(halves);
    let graph: number | undefined;
    try {
      // Ended also after a failure: until then the stream takes nothing else.
      ({ graph } = callNative(() => this.addon.endCapture(this.#handle)));
    } catch (error) {
      failure ??= error;
    }
    if (failure !== undefined || graph === undefined) {
      if (graph !== undefined) this.addon.destroyGraph(this.#handle, graph);
      this.#closePool(pool);
      throw failure;
    }
    return this.#recordingOf(graph, pool);
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#reads.settled();
    for (const pool of this.#pools) pool.releaseAll();
    this.#pools.clear();
    this.addon.close(this.#handle);
  }

  #recordingOf(graph: number, pool: Pool): Recording {
    let disposed = false;
    return {
      replay: () => {
        this.#check();
        if (disposed) throw new LifetimeError("cuda: the recording was disposed.");
        this.#refuseWhileRecording("a replay");
        callNative(() => this.addon.replay(this.#handle, graph));
      },
      dispose: () => {
        if (disposed || this.#disposed) return;
        disposed = true;
        this.addon.destroyGraph(this.#handle, graph);
        this.#closePool(pool);
      },
    };
  }

  #newPool(reuse: boolean): Pool {
    const { addon } = this;
    const pool = new Pool({
      source: {
        allocate: (bytes) => callNative(() => addon.allocate(this.#handle, bytes)),
        release: (address) => addon.release(this.#handle, address),
      },
      reuse,
      // What a recording's pool keeps belongs to its graph.
      onExhausted: () => this.#main.trim(),
    });
    this.#pools.add(pool);
    return pool;
  }

  #closePool(pool: Pool): void {
    pool.close(() => this.#pools.delete(pool));
  }

  #launch(launch: Launch): void {
    if (this.#recorded) this.#recorded.launch(launch);
    else this.#launchAlone(launch);
  }

  #launchAlone(launch: Launch): void {
    let number = this.#kernelNumbers.get(launch.kernel);
    if (number === undefined) {
      number = this.addon.kernel(this.#handle, launch.kernel);
      if (number < 0) {
        throw new BackendError(
          `cuda: the kernel ${launch.kernel} is not in the file of kernels; build it again: scripts/build-addon.mjs.`,
        );
      }
      this.#kernelNumbers.set(launch.kernel, number);
    }
    // Tools that watch memory want kernels one by one.
    if (!packed.launch(number, this.options.reuse ? launch : { ...launch, overlap: false })) return;
    this.addon.share(packed.bytes);
    try {
      this.addon.launch(this.#handle);
      this.#timed?.push(launch.kernel);
    } catch (error) {
      throw new BackendError(`cuda: ${launch.kernel}: ${(error as Error).message}.`, { cause: error });
    }
  }

  #temporary(shape: readonly number[], dtype: DType): View {
    const buffer = this.#pool.allocate(sizeOf(shape) * bytesPerElement[dtype]);
    this.#temporaries.push(buffer);
    return { buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0 };
  }

  #clear(view: View): void {
    this.#recorded?.clear(view);
    const bytes = sizeOf(view.shape) * bytesPerElement[view.dtype];
    if (bytes > 0) callNative(() => this.addon.clear(this.#handle, addressOf(view), bytes));
  }

  #table(words: readonly number[]): View {
    const table = this.#temporary([2 * words.length], "i32");
    for (let from = 0; from < words.length; from += TABLE_PART) {
      const part = words.slice(from, from + TABLE_PART);
      const count = part.length;
      while (part.length < TABLE_PART) part.push(0);
      this.#launch({
        kernel: "store_table",
        grid: 1,
        block: 512,
        args: [pointer({ ...table, offset: 2 * from }), i64(count), longs(part)],
      });
    }
    return table;
  }

  #multiply(product: Product): boolean {
    if (!this.options.blas) return false;
    // Before the numbers are written: launches that were held back go through the same array.
    this.#recorded?.product(product);
    if (!packProduct(packed, product, this.options.tf32)) return false;
    this.addon.share(packed.bytes);
    const taken = callNative(() => this.addon.multiply(this.#handle));
    if (taken) this.#timed?.push(productName(product));
    return taken;
  }

  /** The same kernels, which check that there still is a device, and give back temporaries in the end. */
  #guarded(kernels: Kernels): Kernels {
    const guard =
      (run: (...args: unknown[]) => void) =>
      (...args: unknown[]): void => {
        this.#check();
        try {
          run(...args);
        } finally {
          const used = this.#temporaries;
          if (used.length > 0) {
            this.#temporaries = [];
            for (const buffer of used) buffer.pool.free(buffer);
          }
        }
      };
    const entries = Object.entries(kernels) as [string, (...args: unknown[]) => void][];
    return Object.fromEntries(entries.map(([name, run]) => [name, guard(run)])) as unknown as Kernels;
  }

  /** The address of a part of a buffer. */
  #range(buffer: BackendBuffer, byteOffset: number, byteLength: number): number {
    if (!(byteOffset >= 0 && byteLength >= 0 && byteOffset + byteLength <= buffer.bytes)) {
      throw new BackendError(
        `cuda: bytes ${byteOffset} to ${byteOffset + byteLength} are outside a buffer of ${buffer.bytes}.`,
      );
    }
    return (buffer as CudaBuffer).address + byteOffset;
  }

  #refuseWhileRecording(what: string): void {
    if (this.recording) throw new BackendError(`cuda: ${what} cannot be part of a recording.`);
  }

  #check(): void {
    if (this.#disposed) throw new LifetimeError("cuda: the backend was disposed.");
  }
}
