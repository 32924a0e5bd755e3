// Layer: eval. Losses of long rows in pieces, with the model's state carried from one piece to the next, so that a row may be of any
// length: what rolling likelihoods and the loss by position are made of.
// Knows language models by their run and their head. Knows no text and no task.
import type { MambaLM, ModelState } from "@diffmamba/models";
import { noGrad, scope } from "@diffmamba/tensor";

/** Rows that are read on together. */
export interface CarriedRows {
  /**
   * Reads the next tokens of every row: (batch, length), row by row.
   * @returns (batch, length) nats of the targets; of a target of -100, 0
   */
  next(tokens: Int32Array, targets: Int32Array, length: number): Promise<ArrayLike<number>>;
  dispose(): void;
}

/** A model that can begin rows. */
export interface CarriedModel {
  begin(batch: number): CarriedRows;
}

/** Whether `model` is in training mode is its caller's business. */
export function carried(model: MambaLM): CarriedModel {
  return {
    begin(batch) {
      const { device } = model;
      const state: ModelState = model.initialState(batch);
      return {
        async next(tokens, targets, length) {
          using losses = noGrad(() =>
            scope(() => {
              const shape = [batch, length];
              const { hidden, state: after } = model.run(device.from(tokens, shape, "i32"), { initialState: state });
              for (const [i, mixer] of state.entries()) for (const [j, x] of mixer.entries()) x.take(after[i][j]);
              return model.vocabulary.loss(hidden, device.from(targets, shape, "i32"), { reduction: "none" });
            }),
          );
          return losses.data();
        },
        dispose() {
          for (const tensor of state.flat()) tensor.dispose();
        },
      };
    },
  };
}
