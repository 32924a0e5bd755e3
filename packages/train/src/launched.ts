// Layer: train. One training step as it goes to the device, and its numbers when they come back, a step later.
// Knows models, batches and the optimizer. Knows no file and no event.

import type { Batch } from "@diffmamba/datasets";
import { type AdamW, trainStep } from "@diffmamba/nn";
import { noGrad, scope, type Tensor } from "@diffmamba/tensor";
import type { LambdaValue } from "./metrics.js";
import type { Lambda, TrainableModel } from "./model.js";

/** A step that is under way on the device. */
export interface LaunchedStep {
  /** Steps done with it, from 1. */
  readonly step: number;
  readonly lr: number;
  /** Targets of this step. */
  readonly tokens: number;
  readonly loss: Tensor;
  readonly norm: Tensor;
  readonly lambdas: readonly Lambda[];
}

export interface StepNumbers {
  readonly loss: number;
  readonly norm: number;
  readonly lambda?: readonly LambdaValue[];
}

export interface LaunchOptions {
  readonly step: number;
  readonly lr: number;
  readonly maxNorm: number;
  readonly withLambdas: boolean;
}

/** A batch on the device. */
function upload(
  model: TrainableModel,
  { tokens, targets, batchSize, length }: Batch,
): { tokens: Tensor; targets: Tensor } {
  const { device } = model;
  const shape = [batchSize, length];
  return { tokens: device.from(tokens, shape, "i32"), targets: device.from(targets, shape, "i32") };
}

/** Copies, as a lambda may be a parameter itself, which the next step changes. */
function copies(lambdas: readonly Lambda[]): Lambda[] {
  return lambdas.map(({ layer, value }) => ({ layer, value: value.clone() }));
}

/** Starts a step on the mean loss of its batches. Nothing is read back. */
export function launch(
  model: TrainableModel,
  optimizer: AdamW,
  batches: readonly Batch[],
  { step, lr, maxNorm, withLambdas }: LaunchOptions,
): LaunchedStep {
  const { loss, norm, lambdas } = scope(() => {
    const losses = batches.map((batch, i) => {
      const { tokens, targets } = upload(model, batch);
      return () => {
        model.clock.step.fillInPlace((step - 1) * batches.length + i);
        return model.loss(tokens, targets);
      };
    });
    const result = trainStep(optimizer, losses, { lr, maxNorm });
    return { ...result, lambdas: withLambdas ? noGrad(() => copies(model.lambdas())) : [] };
  });
  return { step, lr, tokens: batches.reduce((sum, { targets }) => sum + targets.length, 0), loss, norm, lambdas };
}

/** Reads the numbers of a step, waiting for it, and frees them on the device. */
export async function settle(launched: LaunchedStep): Promise<StepNumbers> {
  try {
    const loss = await launched.loss.item();
    const norm = await launched.norm.item();
    const lambda: LambdaValue[] = [];
    for (const { layer, value } of launched.lambdas) lambda.push({ layer, value: await value.item() });
    return { loss, norm, ...(lambda.length > 0 && { lambda }) };
  } finally {
    abandon(launched);
  }
}

/** Frees a step's numbers unread. */
export function abandon({ loss, norm, lambdas }: LaunchedStep): void {
  for (const tensor of [loss, norm, ...lambdas.map(({ value }) => value)]) tensor.dispose();
}

/** The loss of the present weights on a batch, in evaluation mode and without gradients. Changes nothing. */
export async function probe(model: TrainableModel, batch: Batch): Promise<number> {
  const { training } = model;
  model.eval();
  try {
    using loss = noGrad(() =>
      scope(() => {
        const { tokens, targets } = upload(model, batch);
        return model.loss(tokens, targets);
      }),
    );
    return await loss.item();
  } finally {
    model.train(training);
  }
}
