// Layer: WebGPU execution. The order of things: commands are collected, and go to the queue as one submit of one compute pass; while
// pipelines are being compiled, batches wait in line, and callers do not. Recordings are lists of the same commands.
// Knows pipelines, bind groups and GPU buffers. Knows no tensor and no kernel.

import { BackendError } from "@diffmamba/tensor";
import { Bindings, type Sending } from "./bindings.js";
import type { Pipeline } from "./pipelines.js";

/** Dispatches of a batch, after which it is submitted: enough to hide what a submit costs, and few enough to begin soon. */
const BATCH = 256;

/** Bind groups that are kept: those of several training steps. */
const MOST_GROUPS = 1 << 14;

interface DispatchCommand {
  readonly pipeline: Pipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
}

interface CopyCommand {
  readonly from: GPUBuffer;
  readonly fromOffset: number;
  readonly to: GPUBuffer;
  readonly bytes: number;
}

type Command = DispatchCommand | CopyCommand | Part;

interface HostWrite {
  readonly gpu: GPUBuffer;
  readonly offset: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Commands of a recording that go with its first submit: few, so that the GPU begins while the others are encoded. */
const FIRST_PART = 32;

/** Commands that were recorded, and what they bind, which is theirs alone. */
export class CommandList {
  readonly commands: DispatchCommand[] = [];

  constructor(readonly bindings: Bindings) {}
}

/** Recorded commands that are submitted together. */
interface Part {
  readonly list: readonly DispatchCommand[];
}

class Batch {
  readonly sending = { sent: false };
  readonly writes: HostWrite[] = [];
  readonly commands: Command[] = [];
  readonly destroyed: GPUBuffer[] = [];
  readonly submitted: (() => void)[] = [];
  /** Pipelines that were not ready when they were enqueued. */
  readonly pending = new Set<Pipeline>();
  dispatches = 0;
}

export interface StreamOptions {
  /** Told of what goes wrong while batches wait. */
  fail(error: BackendError): void;
}

export class Stream {
  /** Of everything that is not recorded. */
  #bindings: Bindings;
  #batch = new Batch();
  #recording: CommandList | undefined;
  /** Batches in line, whose pipelines are being compiled. */
  readonly #waiting: Batch[] = [];
  #draining: Promise<void> | undefined;
  #flushing = false;
  #closed = false;

  constructor(
    private readonly device: GPUDevice,
    private readonly options: StreamOptions,
  ) {
    this.#bindings = new Bindings(device);
  }

  /** The batch that is being collected. */
  get batch(): Sending {
    return this.#batch.sending;
  }

  get recording(): boolean {
    return this.#recording !== undefined;
  }

  /** Where the next dispatch finds what it binds. */
  get bindings(): Bindings {
    if (this.#recording !== undefined) return this.#recording.bindings;
    if (this.#bindings.size >= MOST_GROUPS) {
      // What is enqueued already reads its uniforms, of which some have not been sent.
      this.#bindings.write();
      for (const buffer of this.#bindings.buffers) this.destroy(buffer);
      this.#bindings = new Bindings(this.device);
    }
    return this.#bindings;
  }

  dispatch(command: DispatchCommand): void {
    if (this.#recording !== undefined) {
      this.#recording.commands.push(command);
      return;
    }
    const batch = this.#batch;
    batch.commands.push(command);
    if (command.pipeline.gpu === undefined) batch.pending.add(command.pipeline);
    if (++batch.dispatches === BATCH) this.flush();
  }

  /** Enqueues a copy between buffers; the promise is kept when it has gone to the queue. */
  copy(command: CopyCommand): Promise<void> {
    this.#batch.commands.push(command);
    this.#flushSoon();
    return new Promise((resolve) => this.#batch.submitted.push(resolve));
  }

  /** Enqueues a write from the host. `usedBy`: the last batch that names the buffer. */
  write(gpu: GPUBuffer, offset: number, bytes: Uint8Array, usedBy: object | undefined): void {
    if (usedBy === this.#batch.sending) this.flush();
    if (this.#waiting.length === 0) this.device.queue.writeBuffer(gpu, offset, bytes as Uint8Array<ArrayBuffer>);
    else this.#batch.writes.push({ gpu, offset, bytes: bytes.slice() });
  }

  /** Destroys a buffer when everything enqueued so far is on its way. */
  destroy(gpu: GPUBuffer): void {
    this.#batch.destroyed.push(gpu);
  }

  /** Commands go to a list from here to {@link endRecording}. */
  beginRecording(): void {
    this.#recording = new CommandList(new Bindings(this.device));
  }

  endRecording(): CommandList {
    const list = this.#recording as CommandList;
    this.#recording = undefined;
    list.bindings.write();
    return list;
  }

  /** Enqueues a recorded list. */
  replay(list: CommandList): void {
    const { commands } = list;
    let size = FIRST_PART;
    for (let from = 0; from < commands.length; from += size, size = BATCH) {
      const part = commands.slice(from, from + size);
      this.#batch.commands.push({ list: part });
      for (const { pipeline } of part) if (pipeline.gpu === undefined) this.#batch.pending.add(pipeline);
      this.flush();
    }
  }

  /** Submits what was collected, or puts it in line behind what waits for pipelines. */
  flush(): void {
    const batch = this.#batch;
    const { commands, writes, destroyed, pending } = batch;
    if (commands.length + writes.length + destroyed.length === 0) return;
    this.#bindings.write();
    const ready = pending.size === 0 || [...pending].every(({ gpu }) => gpu !== undefined);
    if (ready && this.#waiting.length === 0) {
      this.#batch = new Batch();
      this.#submit(batch);
      return;
    }
    this.#waiting.push(batch);
    this.#batch = new Batch();
    this.#draining ??= this.#drain();
  }

  /** Waits until everything enqueued has gone to the queue. */
  async submitted(): Promise<void> {
    this.flush();
    await this.#draining;
  }

  /** Forgets everything; what is destroyed anyway is destroyed now. */
  close(): void {
    this.#closed = true;
    for (const batch of [...this.#waiting, this.#batch]) {
      for (const gpu of batch.destroyed) gpu.destroy();
      for (const resolve of batch.submitted) resolve();
    }
    this.#waiting.length = 0;
    this.#batch = new Batch();
  }

  /** At the end of this macrotask's synchronous part, so that several reads share a submit. */
  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.flush();
    });
  }

  async #drain(): Promise<void> {
    for (let batch = this.#waiting[0]; batch !== undefined; batch = this.#waiting[0]) {
      await Promise.all(Array.from(batch.pending, ({ compiled }) => compiled));
      if (this.#closed) break;
      this.#waiting.shift();
      this.#submit(batch);
    }
    this.#draining = undefined;
  }

  #submit(batch: Batch): void {
    const { queue } = this.device;
    batch.sending.sent = true;
    try {
      for (const { gpu, offset, bytes } of batch.writes) queue.writeBuffer(gpu, offset, bytes);
      if (batch.commands.length > 0) queue.submit([this.#encode(batch.commands)]);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.options.fail(new BackendError(`webgpu: ${reason}`, { cause: error }));
    }
    for (const gpu of batch.destroyed) gpu.destroy();
    for (const resolve of batch.submitted) resolve();
  }

  #encode(commands: readonly Command[]): GPUCommandBuffer {
    const encoder = this.device.createCommandEncoder();
    let pass: GPUComputePassEncoder | undefined;
    // The pipeline that the pass has.
    let set: Pipeline | undefined;
    for (const command of commands) {
      if ("from" in command) {
        pass?.end();
        [pass, set] = [undefined, undefined];
        encoder.copyBufferToBuffer(command.from, command.fromOffset, command.to, 0, command.bytes);
        continue;
      }
      pass ??= encoder.beginComputePass();
      if ("list" in command) for (const recorded of command.list) set = encodeDispatch(pass, recorded, set);
      else set = encodeDispatch(pass, command, set);
    }
    pass?.end();
    return encoder.finish();
  }
}

/** @returns the pipeline that the pass has then */
function encodeDispatch(pass: GPUComputePassEncoder, command: DispatchCommand, set: Pipeline | undefined) {
  const { pipeline, group, x, y } = command;
  // One that did not compile: its error is reported, and what follows is void.
  if (pipeline.gpu === undefined) return set;
  if (pipeline !== set) pass.setPipeline(pipeline.gpu);
  pass.setBindGroup(0, group);
  // What is not said need not be converted.
  if (y === 1) pass.dispatchWorkgroups(x);
  else pass.dispatchWorkgroups(x, y);
  return pipeline;
}
