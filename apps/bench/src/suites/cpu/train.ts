// Layer: apps/bench, suites of the CPU backend. A training step of both models beside the reference, fewer threads and the machine's
// rate of multiply-adds; and what it holds in memory. Knows the step. Knows no kernel.
import process from "node:process";
import type { Device } from "@diffmamba/tensor";
import { multiplyAdd } from "../../peers/limits.js";
import type { Case, RowPart, Settings } from "../../race.js";
import type { RowUnit } from "../../row.js";
import { describeModel, type Variant } from "../languageModel.js";
import { stepOn, trainCase } from "../train.js";
import { onThreads } from "./threads.js";

/** What a step may hold: so much for each token and layer, the logits, and a parameter with its gradient and two moments. */
const TOKEN_LAYER_BYTES = 16 * 1024;
const PARAMETER_BYTES = 16;
const F32_BYTES = 4;

const PAGE_BYTES = 4096;

/** Steps until everything that is reused is there, and steps that are watched. */
const STEPS = 3;

/** A step on each count of threads; the reference is given a part of the batch. */
function stepCases(settings: Settings, [first, ...more]: readonly number[]): Case[] {
  const { batch, referenceBatch, rateSquare } = settings;
  const sequences = ({ name }: Device) => (name === "reference" ? Math.min(referenceBatch, batch) : batch);
  const step = (count: number) =>
    trainCase(
      { ...settings, square: rateSquare },
      { unit: "ms", sequences, limits: [multiplyAdd(count)], patience: 30 },
    );
  return [
    onThreads(first, step(first), { reference: true }),
    ...more.map((count) => onThreads(count, step(count), { threads: first, reference: true })),
  ];
}

/** A figure that was counted, not timed. */
function counted(
  name: string,
  shape: string,
  value: number,
  unit: RowUnit,
  allowed?: readonly [string, number],
): RowPart {
  const [peer, limit] = allowed ?? [null, null];
  const ratio = limit === null ? null : limit / value;
  const figures = { value, best: value, peer, peerValue: limit, peerBest: limit, ratio };
  return { name, shape, unit, ...figures, backend: "cpu", spread: 0, samples: 1 };
}

/** Bytes of a step: what the backend holds, what it goes on to ask for, and the pages
 * that the process is given, whoever asks: kernels, the pool, or the JavaScript engine. */
function memoryCase(variant: Variant, settings: Settings): Case {
  const { batch, length, nLayers, vocabSize } = settings;
  const shape = `${describeModel(settings)}, ${batch}x${length} tokens`;
  const name = `${variant} step`;
  return {
    name: `${name}, memory`,
    shape,
    async prepare({ devices: [device], enter }) {
      const step = enter(stepOn(device, variant, settings));
      const work = step.work["GFLOP/s"] ?? 0;
      const run = async () => {
        for (let i = 0; i < STEPS; i++) step.run();
        await device.synchronize();
      };
      await run();
      const warm = device.backend.heldBytes();
      const before = process.resourceUsage().minorPageFault;
      await run();
      const held = device.backend.heldBytes();
      const faults = process.resourceUsage().minorPageFault - before;
      const tokens = batch * length;
      const parameters = work / (6 * tokens);
      const allowance =
        TOKEN_LAYER_BYTES * tokens * nLayers + F32_BYTES * tokens * vocabSize + PARAMETER_BYTES * parameters;
      const allowed = ["16 KiB a token and layer, the logits, 16 bytes a parameter", allowance / 1e6] as const;
      const rows = [
        counted(`${name}, memory held at its peak`, shape, held / 1e6, "MB", allowed),
        counted(`${name}, memory asked for after warm-up`, shape, held - warm, "bytes"),
        counted(`${name}, fresh pages after warm-up`, shape, (PAGE_BYTES * faults) / STEPS, "bytes"),
      ];
      return { entries: [], checks: [], rows: () => rows };
    },
  };
}

export function trainingCases(settings: Settings, threads: readonly number[]): Case[] {
  const memory = (["mamba2", "diffmamba2"] as const).map((variant) =>
    onThreads(threads[threads.length - 1], memoryCase(variant, settings)),
  );
  return [...stepCases(settings, threads), ...memory];
}
