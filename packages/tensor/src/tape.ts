// Reverse-mode automatic differentiation: a tape of closures over ops.
// An op records what it saves and how gradients flow; `runBackward` walks the tape once, from its end, freeing as it goes.
// Knows tensors only by id, layout and a few structural calls. Knows no op by name.

import { isFloat } from "./dtype.js";
import { formatShape, LifetimeError, ShapeError } from "./errors.js";
import type { Layout } from "./layout.js";
import { keep, own, scope } from "./scope.js";
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

interface Input {
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

interface Node {
  readonly name: string;
  readonly inputs: readonly Input[];
  readonly outputs: readonly number[];
  readonly saved: readonly Saved[];
  readonly backward: Backward;
  readonly recompute?: TapeEntry["recompute"];
  /** The outputs made again, from the first node that needs one until this node's own turn. */
  remade?: readonly Tensor[];
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
interface Region {
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

/** The gradients under way, by the id of the tensor that each belongs to. */
class Gradients {
  readonly #byId = new Map<number, Tensor>();
  /** Sums that the caller gave to be added to, and so holds too. */
  readonly #given = new Set<number>();
  constructor(readonly regions: ReadonlyMap<number, Region>) {}

  give(id: number, sum: Tensor): void {
    this.#byId.set(id, keep(sum.alias()));
    this.#given.add(id);
  }

  /** The sum that was given for it. */
  sum(id: number): Tensor | undefined {
    return this.#given.has(id) ? this.#byId.get(id) : undefined;
  }

  take(id: number): Tensor | undefined {
    const gradient = this.#byId.get(id);
    this.#byId.delete(id);
    return gradient;
  }

  place({ id, shape, empty }: Input): Tensor {
    const region = this.regions.get(id);
    if (region === undefined || region.owner !== undefined || this.#byId.has(id)) return empty();
    const place = region.packed.part(region).reshape(...shape);
    if (place.storage !== region.packed.tensor?.storage) return empty();
    region.owner = id;
    return place;
  }

  /** Adds `gradient` to what is there; in place where nobody else holds that memory. */
  add(id: number, gradient: Tensor): void {
    const before = this.#byId.get(id);
    if (before === undefined) {
      this.#byId.set(id, keep(gradient.alias()));
      return;
    }
    const inRegion = before.storage === this.regions.get(id)?.packed.tensor?.storage;
    const ours = before.storage.references === 1 && before.isContiguous();
    if (inRegion || ours || this.#given.has(id)) {
      // A sum may be wider than what is added.
      before.addInPlace(gradient.dtype === before.dtype ? gradient : gradient.cast(before.dtype));
    } else {
      this.#byId.set(id, keep(before.add(gradient)));
      before.dispose();
    }
  }

  dispose(): void {
    for (const gradient of this.#byId.values()) gradient.dispose();
    this.#byId.clear();
  }
}

/** What a node saved: as it is held, or made again. */
function savedBy(node: Node): Tensor[] {
  return node.saved.map((saved) => {
    if (saved.tensor === undefined) return remake(saved.made.maker)[saved.made.output].withLayout(saved.layout);
    const { tensor, version } = saved;
    if (tensor.storage.version !== version) {
      throw new LifetimeError(
        `${node.name}: a value that its gradient needs, ${formatShape(tensor.shape)}, was changed in place after it was used.`,
      );
    }
    return tensor;
  });
}

function remake(maker: Node): readonly Tensor[] {
  maker.remade ??= maker.recompute?.(savedBy(maker)).map(keep) ?? [];
  return maker.remade;
}

function forgetRemade(node: Node): void {
  for (const tensor of node.remade ?? []) tensor.dispose();
  node.remade = undefined;
}

function free(node: Node): void {
  for (const { tensor } of node.saved) tensor?.dispose();
  forgetRemade(node);
}

function runNode(node: Node, gradients: Gradients): void {
  const outputs = node.outputs.map((id) => gradients.take(id));
  // All who needed its outputs have run.
  forgetRemade(node);
  try {
    if (outputs.every((gradient) => gradient === undefined)) return;
    const placed = new Set<number>();
    const sink: GradientSink = {
      needs: (i) => node.inputs[i].tracked,
      place: (i) => {
        const input = node.inputs[i];
        if (placed.has(input.id)) return input.empty();
        placed.add(input.id);
        return gradients.place(input);
      },
      sum: (i) => gradients.sum(node.inputs[i].id),
    };
    scope(() => {
      for (const [i, gradient] of node.backward(outputs, savedBy(node), sink).entries()) {
        const { id, shape, tracked } = node.inputs[i];
        if (gradient === undefined || !tracked) continue;
        if (gradient.shape.length !== shape.length || gradient.shape.some((n, k) => n !== shape[k])) {
          throw new ShapeError(
            `${node.name}: its gradient for input ${i} is ${formatShape(gradient.shape)}, but the input is ${formatShape(shape)}.`,
          );
        }
        gradients.add(id, gradient);
      }
    });
  } finally {
    for (const gradient of outputs) gradient?.dispose();
    free(node);
  }
}

/** A value and its gradient; that of the tape's end is one of several outputs'. */
export type Seed = readonly [value: Tensor, gradient: Tensor];

/**
 * Internal: walks a tape from its end. `sums` are gradients of leaves to which theirs are added, in place.
 * @returns the gradients of the leaves, undefined where nothing depends on one
 */
export function runBackward(
  tape: Tape,
  seeds: readonly Seed[],
  leaves: readonly Tensor[],
  sums: readonly Seed[] = [],
): (Tensor | undefined)[] {
  const gradients = new Gradients(tape.regions);
  try {
    for (const [{ id }, sum] of sums) gradients.give(id, sum);
    for (const [{ id }, gradient] of seeds) gradients.add(id, gradient);
    while (tape.nodes.length > 0) {
      const node = tape.nodes[tape.nodes.length - 1];
      runNode(node, gradients);
      tape.nodes.pop();
    }
    return leaves.map((leaf) => {
      const gradient = gradients.take(leaf.id);
      if (gradient === undefined) return undefined;
      const contiguous = gradient.contiguous();
      if (contiguous === gradient) {
        own(gradient);
        return gradient;
      }
      gradient.dispose();
      return contiguous;
    });
  } finally {
    gradients.dispose();
  }
}

const zerosLike = ({ device, shape, dtype }: Tensor) => device.zeros(shape, dtype);

export interface GradOptions {
  /** Gradients from an earlier call, one per leaf or undefined: the new ones are added to them, in place. Those of bf16 and f16 may be f32. */
  readonly into?: readonly (Tensor | undefined)[];
}

/**
 * The value of `fn`, a tensor with one element, and its gradients with respect to `leaves`, in their order; zeros where
 * it does not depend on one. What `fn` makes on the way is freed as backward goes. There are no second-order gradients.
 * @throws ShapeError if the value has more than one element
 * @throws LifetimeError inside another call of itself, or if a value that a gradient needs was changed in place
 */
export function valueAndGrad(
  fn: () => Tensor,
  leaves: readonly Tensor[],
  options: GradOptions = {},
): { readonly value: Tensor; readonly gradients: Tensor[] } {
  if (active !== undefined) {
    throw new LifetimeError("grad: called while another gradient is recorded; there are no second-order gradients.");
  }
  const tape = new Tape();
  for (const leaf of leaves) {
    if (!isFloat(leaf.dtype)) throw new ShapeError(`grad: a tensor of ${leaf.dtype} has no gradient.`);
    tape.tracked.add(leaf.id);
  }
  try {
    return scope(() => {
      const value = onTape(tape, () => scope(fn));
      if (value.size !== 1) {
        throw new ShapeError(
          `grad: the function's value is ${formatShape(value.shape)}; a gradient needs a single number.`,
        );
      }
      const sums = (options.into ?? []).flatMap((sum, i): Seed[] => (sum === undefined ? [] : [[leaves[i], sum]]));
      const one = value.device.full(value.shape, 1, value.dtype);
      const gradients = runBackward(tape, [[value, one]], leaves, sums);
      one.dispose();
      return { value, gradients: gradients.map((gradient, i) => gradient ?? zerosLike(leaves[i])) };
    });
  } finally {
    tape.release();
  }
}

/**
 * The function that gives [value, gradient with respect to each argument].
 * @example const [value, dw] = grad((w: Tensor) => w.square().sum())(w);
 */
export function grad<Args extends readonly Tensor[]>(
  fn: (...args: Args) => Tensor,
): (...args: Args) => [value: Tensor, ...gradients: { [K in keyof Args]: Tensor }] {
  return (...args) => {
    const { value, gradients } = valueAndGrad(() => fn(...args), args);
    return [value, ...gradients] as unknown as [Tensor, ...{ [K in keyof Args]: Tensor }];
  };
}
