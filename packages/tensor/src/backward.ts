// The way back: walks a tape once, from its end, and frees it as it goes.
// Knows tapes and the few operations that join gradients. Knows no op by name.

import { formatShape, LifetimeError, ShapeError } from "./errors.js";
import { keep, own, scope } from "./scope.js";
import { forgetRemade, free, type GradientSink, type Input, type Node, type Region, type Tape } from "./tape.js";
import type { Tensor } from "./tensor.js";

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
