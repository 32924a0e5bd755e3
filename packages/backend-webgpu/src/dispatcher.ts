// Layer: WebGPU execution. A kernel's dispatch made into a command: its buffers into bindings, its choices into a pipeline, its numbers
// into uniforms.
// Knows slabs, pipelines and the stream. Knows no kernel and no tensor.

import { BackendError, bytesPerElement, type DType, formatShape } from "@diffmamba/tensor";
import type { BufferUse, Dispatch, F32, KernelLimits, Operand } from "./context.js";
import type { Slab, WebGpuBuffer } from "./memory.js";
import type { Pipeline, Pipelines } from "./pipelines.js";
import { shaders } from "./shaders.generated.js";
import type { Stream } from "./stream.js";
import type { BindingText, UniformText } from "./template.js";

/** Multiple of bytes at which a binding may begin. */
const ALIGNMENT = 256;

type Scalar = "f32" | "i32" | "u32";

const scalars: Readonly<Record<DType, Scalar>> = {
  f32: "f32",
  f64: "u32",
  i32: "i32",
  bf16: "u32",
  f16: "u32",
  u8: "u32",
};

/** A buffer of a dispatch. */
interface Use {
  readonly name: string;
  readonly view: Operand;
  readonly slab: Slab;
  readonly element: string;
  /** Bytes of a unit of `u.<name>_at`. */
  readonly unit: number;
  written: boolean;
  /** The first use of the same binding: itself, or one before. */
  leader: Use;
  /** What the binding shows of the slab, where it is too large to be seen as a whole. */
  from: number;
  to: number;
}

const noUniforms: Readonly<Record<string, number>> = {};

export interface DispatcherOptions {
  readonly stream: Stream;
  readonly pipelines: Pipelines;
  readonly limits: KernelLimits;
  /** Workgroups of a grid along one axis. */
  readonly gridSize: number;
  /** The slab of a buffer. @throws where it was freed or is another backend's */
  slabOf(buffer: WebGpuBuffer): Slab;
}

export class Dispatcher {
  readonly #plans = new WeakMap<object, Map<number, Pipeline>>();

  constructor(private readonly options: DispatcherOptions) {}

  /** Enqueues. @param op the kernel that asks for it, for messages */
  run(op: string, dispatch: Dispatch): void {
    const { uniforms = noUniforms, groups } = dispatch;
    if (groups === 0) return;
    const uses = this.#uses(op, dispatch);
    const { stream } = this.options;
    const pipeline = this.#pipeline(dispatch, uses, uniforms);
    const leaders = uses.every((use) => use.leader === use) ? uses : uses.filter((use) => use.leader === use);
    const { bindings, batch } = stream;
    const put = (words: Uint32Array, floats: Float32Array, at: number) =>
      putUniforms(pipeline, uses, uniforms, { words, floats, at });
    const group = bindings.group(pipeline.layout, leaders, put, stream.recording ? undefined : batch);
    const { gridSize } = this.options;
    const rows = Math.ceil(groups / gridSize);
    for (const { slab } of uses) slab.usedBy = batch;
    stream.dispatch({ pipeline, group, x: rows === 1 ? groups : Math.ceil(groups / rows), y: rows });
  }

  /** The pipeline of a plan by which of its buffers are one, or that of a key that says all. */
  #pipeline(dispatch: Dispatch, uses: readonly Use[], uniforms: Readonly<Record<string, number | F32>>): Pipeline {
    const { plan } = dispatch;
    if (plan === undefined) return this.#find(dispatch, uses, uniforms);
    let sharing = 0;
    for (const { leader } of uses) sharing = sharing * 16 + uses.indexOf(leader);
    let known = this.#plans.get(plan);
    if (known === undefined) {
      known = new Map();
      this.#plans.set(plan, known);
    }
    let pipeline = known.get(sharing);
    if (pipeline === undefined) {
      pipeline = this.#find(dispatch, uses, uniforms);
      known.set(sharing, pipeline);
    }
    return pipeline;
  }

  #find(dispatch: Dispatch, uses: readonly Use[], uniforms: Readonly<Record<string, number | F32>>): Pipeline {
    const { shader, constants } = dispatch;
    let key = typeof shader === "string" ? shader : shader.name;
    for (const name in constants) {
      const value = constants[name];
      if (value === true) key += `,${name}`;
      else if (typeof value === "number") key += `,${name}=${value}`;
    }
    for (const { name, element, written, leader } of uses) {
      key += `;${name}:${element}${written ? "w" : ""}`;
      if (leader.name !== name) key += `>${leader.name}`;
    }
    return this.options.pipelines.find(key) ?? this.#make(key, dispatch, uses, uniforms);
  }

  #uses(op: string, { buffers, writes }: Dispatch): Use[] {
    const uses: Use[] = [];
    for (const name in buffers) {
      const use = buffers[name];
      if (use === undefined) continue;
      uses.push(this.#use(op, name, use, writes.includes(name)));
    }
    for (let i = 1; i < uses.length; i++) {
      const use = uses[i];
      for (let k = 0; k < i; k++) {
        if (uses[k].slab === use.slab && sharesWritten(uses, use.slab)) {
          join(op, uses[k].leader, use);
          break;
        }
      }
    }
    if (uses.length > this.options.limits.buffers) {
      const bound = uses.filter((use) => use.leader === use).length;
      if (bound > this.options.limits.buffers) {
        throw new BackendError(
          `webgpu: ${op} binds ${bound} buffers; this device takes ${this.options.limits.buffers} at once.`,
        );
      }
    }
    for (const use of uses) if (use.slab.size > this.options.limits.bindingBytes) this.#narrow(op, use);
    return uses;
  }

  #use(op: string, name: string, use: BufferUse, written: boolean): Use {
    const view = "view" in use ? use.view : use;
    const { vec, atomic, f16 } = "view" in use ? use : ({} as { vec?: 4; atomic?: true; f16?: true });
    const scalar = f16 ? "f16" : scalars[view.dtype];
    const element = vec === 4 ? `vec4<${scalar}>` : atomic ? `atomic<${scalar}>` : scalar;
    const unit = vec === 4 ? 16 : bytesPerElement[view.dtype];
    const slab = this.options.slabOf(view.buffer as WebGpuBuffer);
    if ((view.offset * bytesPerElement[view.dtype]) % unit !== 0) {
      throw new BackendError(
        `webgpu: ${op}: ${name} begins at element ${view.offset}, which is no vector's beginning.`,
      );
    }
    const made = { name, view, slab, element, unit, written, from: 0, to: slab.size } as Use;
    made.leader = made;
    return made;
  }

  /** Makes a binding of a slab that is too large show as little as the views on it need. */
  #narrow(op: string, use: Use): void {
    const { leader, view, slab } = use;
    const bytes = bytesPerElement[view.dtype];
    const last = view.shape.reduce((sum, n, axis) => sum + Math.max(0, n - 1) * view.strides[axis], view.offset);
    const first = leader === use;
    const from = Math.floor((view.offset * bytes) / ALIGNMENT) * ALIGNMENT;
    const to = Math.min(slab.size, Math.ceil(((last + 1) * bytes) / 16) * 16);
    leader.from = first ? from : Math.min(leader.from, from);
    leader.to = first ? to : Math.max(leader.to, to);
    const { bindingBytes } = this.options.limits;
    if (leader.to - leader.from > bindingBytes) {
      throw new BackendError(
        `webgpu: ${op}: ${use.name}, ${formatShape(view.shape)} ${view.dtype}, spans ${leader.to - leader.from} bytes; ` +
          `this device lets a kernel see ${bindingBytes} bytes of a buffer. Split the tensor.`,
      );
    }
  }

  #make(
    key: string,
    dispatch: Dispatch,
    uses: readonly Use[],
    given: Readonly<Record<string, number | F32>>,
  ): Pipeline {
    const { shader, constants = {} } = dispatch;
    const { name, text } = typeof shader === "string" ? { name: shader, text: shaders[shader] } : shader;
    const bindings: BindingText[] = uses
      .filter((use) => use.leader === use)
      .map((leader) => ({
        names: uses.filter((use) => use.leader === leader).map((use) => use.name),
        element: leader.element,
        written: leader.written,
      }));
    const uniforms: UniformText[] = uses.map((use) => ({ name: `${use.name}_at`, type: "u32" }));
    for (const [uniform, value] of Object.entries(given)) {
      uniforms.push({ name: uniform, type: typeof value === "number" ? "u32" : "f32" });
    }
    return this.options.pipelines.make(key, { name, text, constants, bindings, uniforms });
  }
}

/** Writes the places of views and the kernel's numbers. @returns where they end */
function putUniforms(
  { name, uniforms }: Pipeline,
  uses: readonly Use[],
  given: Readonly<Record<string, number | F32>>,
  { words, floats, at }: { readonly words: Uint32Array; readonly floats: Float32Array; readonly at: number },
): number {
  let place = at;
  for (const { view, unit, leader } of uses) {
    words[place++] = (view.offset * bytesPerElement[view.dtype] - leader.from) / unit;
  }
  for (let i = uses.length; i < uniforms.length; i++, place++) {
    const value = given[uniforms[i].name];
    if (typeof value === "number") words[place] = value;
    else if (value !== undefined) floats[place] = value.value;
    else throw new BackendError(`webgpu: ${name} lacks the uniform ${uniforms[i].name}.`);
  }
  return place;
}

/** Whether something is written to a slab: then it may be bound but once. */
function sharesWritten(uses: readonly Use[], slab: Slab): boolean {
  return uses.some((use) => use.slab === slab && use.written);
}

function join(op: string, leader: Use, use: Use): void {
  if (leader.element !== use.element) {
    throw new BackendError(
      `webgpu: ${op}: ${leader.name} (${leader.element}) and ${use.name} (${use.element}) share a buffer, ` +
        "one of them is written, and they are not seen alike. Copy one of them first.",
    );
  }
  leader.written ||= use.written;
  use.leader = leader;
}
