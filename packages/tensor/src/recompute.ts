// Activation checkpointing (Chen et al. 2016): a part of a computation keeps its inputs alone, and is run again when its gradient is
// asked for. The same ops over the same values in the same order: the same bits.
// Knows the tape. Knows no op.

import { runBackward, type Seed } from "./backward.js";
import { scope } from "./scope.js";
import { activeTape, onTape, record, Tape, type TapeEntry } from "./tape.js";
import type { Tensor } from "./tensor.js";

/** Records nothing but which values of the tape around it a computation depends on. */
class Probe extends Tape {
  /** Values from outside, by id. */
  readonly found = new Map<number, Tensor>();

  constructor(private readonly outer: Tape) {
    super();
  }

  override tracks(tensor: Tensor): boolean {
    return super.tracks(tensor) || this.outer.tracks(tensor);
  }

  override push({ inputs, outputs }: TapeEntry): void {
    for (const input of inputs) if (this.outer.tracks(input)) this.found.set(input.id, input);
    for (const { id } of outputs) this.tracked.add(id);
  }
}

/**
 * The tensors that `fn` gives of `inputs`. Under a tape nothing that it makes on the way is held: `fn` is run again in backward,
 * over the inputs, which are held. What else it uses that has a gradient must live until then, as parameters do, and
 * must not change; random numbers must be counted (see `dropout`).
 */
export function recompute(fn: (...inputs: Tensor[]) => readonly Tensor[], inputs: readonly Tensor[]): Tensor[] {
  const outer = activeTape();
  // An output that is an input gets a name of its own, so that its gradient has one.
  const run = (given: readonly Tensor[]) =>
    scope(() => fn(...given).map((output) => (given.includes(output) ? output.reshape(...output.shape) : output)));
  if (outer === undefined) return run(inputs);
  const probe = new Probe(outer);
  const outputs = onTape(probe, () => run(inputs));
  const others = [...probe.found.values()].filter((tensor) => !inputs.includes(tensor));
  record({
    name: "recompute",
    inputs: [...inputs, ...others],
    outputs,
    save: inputs,
    backward: (gradients, saved, sink) => {
      const tape = new Tape();
      const leaves = [...saved, ...others];
      for (const [i, { id }] of leaves.entries()) if (sink.needs(i)) tape.tracked.add(id);
      try {
        const again = onTape(tape, () => run(saved));
        const seeds = again.flatMap((output, i): Seed[] => {
          const gradient = gradients[i];
          return gradient === undefined ? [] : [[output, gradient]];
        });
        const sums = leaves.map((_, i) => (sink.needs(i) ? sink.sum(i) : undefined));
        const given = sums.flatMap((sum, i): Seed[] => (sum === undefined ? [] : [[leaves[i], sum]]));
        return runBackward(tape, seeds, leaves, given).map((gradient, i) => {
          if (sums[i] === undefined) return gradient;
          // It was added to what there is of it.
          gradient?.dispose();
          return undefined;
        });
      } finally {
        tape.release();
      }
    },
  });
  return outputs;
}
