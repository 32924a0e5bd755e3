// Layer: train. How much memory a run will take, before its first step: a real step is taken on a device that holds no data.
// Knows models and the optimizer. Knows no kernel, and no backend's workspaces or pools.

import { AdamW, type ParameterGroup } from "@diffmamba/nn";
import { type Device, shapesOnly } from "@diffmamba/tensor";
import { abandon, launch } from "./launched.js";
import type { TrainableModel } from "./model.js";

export interface MemoryQuestion {
  /** Makes the model on this device; its weights are never drawn. */
  readonly build: (device: Device) => TrainableModel;
  readonly batchSize: number;
  /** Tokens of a row. */
  readonly length: number;
  /** Batches of one step; 1 by default. Each is freed before the next. */
  readonly microBatches?: number;
  /** Where it will run: the estimate follows its preferences, such as the chunks of its scans. */
  readonly device?: Device;
  /** What is trained; everything, by default. */
  readonly groups?: (model: TrainableModel) => readonly ParameterGroup[];
}

/** Bytes. What a backend needs beside its tensors (workspaces, unused parts of its pool) comes on top. */
export interface MemoryEstimate {
  readonly parameters: number;
  readonly gradients: number;
  /** Moments. */
  readonly optimizer: number;
  /** What forward keeps for backward, and intermediates, at the fullest moment. */
  readonly activations: number;
  /** The fullest moment of a step. */
  readonly total: number;
}

/** The memory of one training step of this model, batch and optimizer, to the byte as tensors are counted. */
export async function estimateMemory(question: MemoryQuestion): Promise<MemoryEstimate> {
  const { build, batchSize, length, microBatches = 1, groups } = question;
  await using device = shapesOnly(question.device);
  const model = build(device);
  if (model.device !== device) {
    throw new Error(
      `estimateMemory: build() made the model on ${model.device.name}; it must use the device that it is given.`,
    );
  }
  model.train();
  const trained = groups?.(model) ?? [{ parameters: model.parameters(), weightDecay: 0 }];
  const parameters = device.memory().bytes;
  const optimizer = new AdamW(trained);
  const moments = device.memory().bytes - parameters;

  const size = batchSize * length;
  const batch = { tokens: new Int32Array(size), targets: new Int32Array(size), batchSize, length, epoch: 0, step: 0 };
  device.resetPeak();
  const batches = new Array(microBatches).fill(batch);
  abandon(launch(model, optimizer, batches, { step: 1, lr: 0, maxNorm: 1, withLambdas: false }));
  const total = device.memory().peakBytes;

  const gradients = optimizer.parameters.reduce((sum, { compute }) => sum + compute.storage.bytes, 0);
  optimizer.dispose();
  model.dispose();
  return {
    parameters,
    gradients,
    optimizer: moments,
    activations: Math.max(0, total - parameters - gradients - moments),
    total,
  };
}
