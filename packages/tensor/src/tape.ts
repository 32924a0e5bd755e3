// Reverse-mode automatic differentiation: a tape of closures over ops.
// An op records what it saves and how gradients flow; backward.ts walks the tape.
// Knows tensors only by id, layout and a few structural calls. Knows no op by name.

import { isFloat } from "./dtype.js";
import type { Layout } from "./layout.js";
import { keep } from "./scope.js";
import type { Tensor } from "./tensor.js";

/** What a backward closure may ask about the gradients it is to give. */
export interface GradientSink {
  /** True if a gradient for input `i` is of use to anybody. */
  needs(i: number): boolean;
  /**
   * Where the gradient of input `i` is best written: a new tensor or, if that input is a part of a split, its part of
   * the packed gradient. The content is arbitrary; write all of it, then return it as that input's gradient.
   */
  place(i: number): Tensor;
  /**
   * The sum to which the gradient of input `i` is to be added, if its caller gave one ({@link GradOptions.into}): whoever adds to it in
   * place returns nothing for that input. Of an input of bf16 or f16 it may be f32.
   */
  sum(i: number): Tensor | undefined;
}

/** From the gradients of the outputs (undefined where nothing depends on one) to those of the inputs. */
export type Backward = (
  gradients: readonly (Tensor | undefined)[],
  saved: readonly Tensor[],
  sink: GradientSink,
) => readonly (Tensor | undefined)[];

export interface TapeEntry {
  /** The op's name, for messages. */
  readonly name: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** Tensors whose memory backward needs; the tape holds it until then. */
  readonly save?: readonly Tensor[];
  readonly backward: Backward;
  /**
   * Makes the outputs again, the same bits, from what was saved. For ops that are cheap beside the memory of their outputs: whoever
   * saves such an output does not hold it, and has it made again.
   */
  readonly recompute?: (saved: readonly Tensor[]) => readonly Tensor[];
}

/** Internal: what a node knows of an input. */
export interface Input {
  readonly id: number;
  readonly shape: readonly number[];
  readonly tracked: boolean;
  /** A new tensor of the input's shape, after the input itself is gone. */
  empty(): Tensor;
}

/** A value that backward needs: held since it was made, or the output of a node that makes it again. */
type Saved =
  | { readonly tensor: Tensor; readonly version: number }
  | { readonly tensor?: undefined; readonly made: Made; readonly layout: Layout };

/** Output `output` of the node `maker`, which can make it again. */
interface Made {
  readonly maker: Node;
  readonly output: number;
}

/** Internal: an op that ran. */
export interface Node {
  readonly name: string;
  readonly inputs: readonly Input[];
  readonly outputs: readonly number[];
  readonly saved: readonly Saved[];
  readonly backward: Backward;
  readonly recompute?: TapeEntry["recompute"];
  /** The outputs made again, from the first node that needs one until this node's own turn. */
  remade?: readonly Tensor[];
}

/** Internal: disposes of outputs that were made again. */
export function forgetRemade(node: Node): void {
  for (const tensor of node.remade ?? []) tensor.dispose();
  node.remade = undefined;
}

/** Internal: lets go of all that a node holds. */
export function free(node: Node): void {
  for (const { tensor } of node.saved) tensor?.dispose();
  forgetRemade(node);
}

/** The gradient of a split's input, made when the first of its parts asks for its place. */
class PackedGradient {
  tensor: Tensor | undefined;
  constructor(
    readonly empty: () => Tensor,
    readonly axis: number,
  ) {}

  part({ start, size }: Region): Tensor {
    this.tensor ??= keep(this.empty());
    return this.tensor.slice(this.axis, start, start + size);
  }
}

/** One part of a packed gradient; the first value that asks for it has it, be it the part itself or a reshape of it. */
export interface Region {
  readonly packed: PackedGradient;
  readonly start: number;
  readonly size: number;
  owner?: number;
}

/** Internal: what ops have recorded, for one backward pass. */
export class Tape {
  readonly nodes: Node[] = [];
  readonly tracked = new Set<number>();
  /** Outputs that can be made again, by memory: a part of one is found there too. */
  readonly remakable = new Map<Tensor["storage"], Made>();
  /** Parts of splits, and reshapes of them, by id. */
  readonly regions = new Map<number, Region>();

  push(entry: TapeEntry): void {
    const node: Node = {
      name: entry.name,
      inputs: entry.inputs.map((input) => {
        const { id, shape, dtype, device } = input;
        return { id, shape, tracked: this.tracks(input), empty: () => device.empty(shape, dtype) };
      }),
      outputs: entry.outputs.map((output) => output.id),
      saved: (entry.save ?? []).map((tensor) => this.save(tensor)),
      backward: entry.backward,
      recompute: entry.recompute,
    };
    this.nodes.push(node);
    for (const [i, { id, storage }] of entry.outputs.entries()) {
      this.tracked.add(id);
      if (entry.recompute !== undefined && !storage.backend.holdsOutputs) {
        this.remakable.set(storage, { maker: node, output: i });
      }
    }
  }

  save(tensor: Tensor): Saved {
    const { storage, shape, strides, offset } = tensor;
    const made = this.remakable.get(storage);
    // What was written in place since is not what would be made.
    if (made !== undefined && storage.version === 0) return { made, layout: { shape, strides, offset } };
    return { tensor: keep(tensor.alias()), version: storage.version };
  }

  tracks(tensor: Tensor): boolean {
    return isFloat(tensor.dtype) && this.tracked.has(tensor.id);
  }

  release(): void {
    for (const node of this.nodes) free(node);
    this.nodes.length = 0;
    for (const { packed } of this.regions.values()) packed.tensor?.dispose();
    this.regions.clear();
    this.remakable.clear();
  }
}

let active: Tape | undefined;

/** True while ops record. */
export function isRecording(): boolean {
  return active !== undefined;
}

/** Internal: the tape that ops record on. */
export function activeTape(): Tape | undefined {
  return active;
}

/** Runs `fn` without recording: what it computes is a constant to the tape around it. */
export function noGrad<T>(fn: () => T): T {
  return onTape(undefined, fn);
}

/** Internal: runs `fn` while ops record on another tape, or on none. */
export function onTape<T>(tape: Tape | undefined, fn: () => T): T {
  const outer = active;
  active = tape;
  try {
    return fn();
  } finally {
    active = outer;
  }
}

/** True if an op on these inputs would be remembered by {@link record}. */
export function records(inputs: readonly Tensor[]): boolean {
  const tape = active;
  return tape !== undefined && inputs.some((input) => tape.tracks(input));
}

/** Called by every op after its kernels: remembers how gradients flow through it, if any input has one. */
export function record(entry: TapeEntry): void {
  if (records(entry.inputs)) active?.push(entry);
}

/** Like {@link record} for `split`: the outputs are views side by side along `axis`, and share one packed gradient. */
export function recordSplit(source: Tensor, outputs: readonly Tensor[], axis: number): void {
  const tape = active;
  if (!tape?.tracks(source)) return;
  const { shape, dtype, device } = source;
  const packed = new PackedGradient(() => device.empty(shape, dtype), axis);
  const regions: Region[] = [];
  let start = 0;
  for (const output of outputs) {
    const region = { packed, start, size: output.shape[axis] };
    regions.push(region);
    tape.regions.set(output.id, region);
    start += output.shape[axis];
  }
  tape.push({
    name: "split",
    inputs: [source],
    outputs,
    backward: (gradients) => {
      for (const [i, gradient] of gradients.entries()) {
        const place = packed.part(regions[i]);
        if (gradient === undefined) place.fillInPlace(0);
        else if (gradient.storage !== place.storage) place.assign(gradient);
      }
      const whole = packed.tensor;
      packed.tensor = undefined;
      const result = whole?.alias();
      whole?.dispose();
      return [result];
    },
  });
}

/** Like {@link record} for `reshape`: a reshape of a split's part has its gradient in that part's place. */
export function recordReshape(x: Tensor, out: Tensor): void {
  if (active === undefined) return;
  const before = x.shape;
  record({ name: "reshape", inputs: [x], outputs: [out], backward: ([dy]) => [dy?.reshape(...before)] });
  const region = active.regions.get(x.id);
  if (region !== undefined) active.regions.set(out.id, region);
}
