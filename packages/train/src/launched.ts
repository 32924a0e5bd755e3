// Layer: train. One training step as it goes to the device, and its numbers when they come back, a step later.
// Knows models, batches and the optimizer. Knows no file, no event and no recording.

import type { Batch } from "@diffmamba/datasets";
import { type AdamW, type LossScale, trainStep } from "@diffmamba/nn";
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
  /** Its numbers, once they are asked for. */
  reading?: Promise<StepNumbers>;
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
  /** For f16. */
  readonly lossScale?: LossScale;
}

/** A batch on the device. */
export interface DeviceBatch {
  /** (B, L) i32 */
  readonly tokens: Tensor;
  readonly targets: Tensor;
  /** Which document each token belongs to, where documents are packed. */
  readonly seqIdx?: Tensor;
}

export function upload(model: TrainableModel, { tokens, targets, seqIdx, batchSize, length }: Batch): DeviceBatch {
  const { device } = model;
  const place = (values: Int32Array) => device.from(values, [batchSize, length], "i32");
  return { tokens: place(tokens), targets: place(targets), ...(seqIdx && { seqIdx: place(seqIdx) }) };
}

/** The loss of a batch; where documents are packed, none sees another. */
export function lossOf(model: TrainableModel, { tokens, targets, seqIdx }: DeviceBatch): Tensor {
  return seqIdx === undefined ? model.loss(tokens, targets) : model.loss(tokens, targets, { seqIdx });
}

/** Copies, as a lambda may be a parameter itself, which the next step changes. */
export function copies(lambdas: readonly Lambda[]): Lambda[] {
  return lambdas.map(({ layer, value }) => ({ layer, value: value.clone() }));
}

export const targetsIn = (batches: readonly Batch[]): number =>
  batches.reduce((sum, { targets }) => sum + targets.length, 0);

/** What changes from step to step, each a tensor, so that the step can be recorded: see {@link takeStep}. */
export interface StepInputs {
  readonly batches: readonly DeviceBatch[];
  /** () i32: the clock of the step's first micro-batch; the others go on from it. */
  readonly clock: Tensor;
}

/** The computation of a step on the mean loss of its batches, with the learning rate that the optimizer has. */
export function takeStep(
  model: TrainableModel,
  optimizer: AdamW,
  { batches, clock }: StepInputs,
  { maxNorm, lossScale }: Pick<LaunchOptions, "maxNorm" | "lossScale">,
): { readonly loss: Tensor; readonly norm: Tensor } {
  const losses = batches.map((batch, i) => () => {
    noGrad(() => scope(() => model.clock.step.assign(i === 0 ? clock : clock.add(i))));
    return lossOf(model, batch);
  });
  return trainStep(optimizer, losses, { maxNorm, ...(lossScale && { lossScale }) });
}

/** Starts a step on the mean loss of its batches. Nothing is read back. */
export function launch(
  model: TrainableModel,
  optimizer: AdamW,
  batches: readonly Batch[],
  { step, lr, withLambdas, ...options }: LaunchOptions,
): LaunchedStep {
  const result = scope(() => {
    const clock = model.device.full([], (step - 1) * batches.length, "i32");
    optimizer.setRate(lr);
    const inputs = { batches: batches.map((batch) => upload(model, batch)), clock };
    const { loss, norm } = takeStep(model, optimizer, inputs, options);
    return { loss, norm, lambdas: withLambdas ? noGrad(() => copies(model.lambdas())) : [] };
  });
  return { step, lr, tokens: targetsIn(batches), ...result };
}

/** Asks for the numbers of a step, all at once: what is enqueued after this is not waited for when they are settled. */
export function beginReading(launched: LaunchedStep): void {
  launched.reading ??= read(launched);
  // Whoever settles the step is told; a step that is abandoned has nobody.
  launched.reading.catch(() => undefined);
}

async function read({ loss, norm, lambdas }: LaunchedStep): Promise<StepNumbers> {
  const tensors = [loss, norm, ...lambdas.map(({ value }) => value)];
  const [first, second, ...values] = await Promise.all(tensors.map((x) => x.item()));
  const lambda: LambdaValue[] = lambdas.map(({ layer }, i) => ({ layer, value: values[i] }));
  return { loss: first, norm: second, ...(lambda.length > 0 && { lambda }) };
}

/** The numbers of a step, waiting for it; frees them on the device. */
export async function settle(launched: LaunchedStep): Promise<StepNumbers> {
  beginReading(launched);
  try {
    return await (launched.reading as Promise<StepNumbers>);
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
        return lossOf(model, upload(model, batch));
      }),
    );
    return await loss.item();
  } finally {
    model.train(training);
  }
}
