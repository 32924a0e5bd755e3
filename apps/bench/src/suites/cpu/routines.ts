// Layer: apps/bench, suites of the CPU backend. The routines of a layer with the sizes of real models: the scans by state update and as
// the matrix products they are made of, and what memory limits beside a copy of as many bytes.
// Knows the routines by name. Knows no kernel.
import { memoryCopied, multiplyAdd } from "../../peers/limits.js";
import type { Case, Settings } from "../../race.js";
import { adamwBytes, adamwCase } from "../ops/elementwise.js";
import { type Part, type Routine, type RoutineChoice, routineCases } from "../ops/kernel.js";
import { ownMatmul } from "../ops/matmul.js";
import { causalConv1d, crossEntropy, gatedNorm, selectiveScan, ssdScan } from "../ops/routines.js";
import { onThreads } from "./threads.js";

/** What is timed on the first count of threads, and on each further one. */
const parts = {
  scans: ["forward", "backward", "forward+backward"],
  others: ["forward", "backward"],
  further: ["forward+backward"],
} as const satisfies Record<string, readonly Part[]>;

/** Sizes of the scans: Mamba-1's, those of the model that is trained, of its differential sister, and of a model of 130M. */
function scanCases(settings: Settings, threads: readonly number[]): Case[] {
  const { scanBatch, scanLength, scanModel, wide, wideState, wideLength, rateSquare, headDim } = settings;
  const scan = selectiveScan({ ...settings, batch: scanBatch, length: scanLength, dModel: scanModel });
  const differential = { ...settings, headDim: headDim / 2, groups: 2 };
  const large = { ...settings, batch: 1, length: wideLength, dModel: wide, dState: wideState };
  const products = (count: number): RoutineChoice => ({
    ...{ unit: "GFLOP/s", peers: () => [multiplyAdd(count)] },
    ceilings: (device) => [ownMatmul(device, rateSquare)],
  });
  return [
    ...onEach(threads, parts.scans, scan, () => ({ unit: "ns/update" })),
    ...[settings, differential, large].flatMap((sizes) => onEach(threads, parts.scans, ssdScan(sizes), products)),
  ];
}

/** What moves much and computes little. */
function bandwidthCases(settings: Settings, threads: readonly number[]): Case[] {
  const { parameters, wide, wideVocab, length } = settings;
  const copies = (count: number) => (bytes: number) => [memoryCopied(bytes, count)];
  const routines: Routine[] = [
    causalConv1d(settings),
    gatedNorm(settings),
    gatedNorm({ ...settings, dModel: wide }),
    crossEntropy(settings),
    crossEntropy({ batch: 1, length, vocabSize: wideVocab }),
  ];
  const adamw = (count: number) =>
    adamwCase(parameters, { unit: "GB/s", peers: copies(count)(adamwBytes(parameters)) });
  const [first, ...more] = threads;
  return [
    ...routines.flatMap((routine) =>
      onEach(threads, parts.others, routine, (count) => ({ unit: "GB/s", peers: copies(count) })),
    ),
    onThreads(first, adamw(first)),
    ...more.map((count) => onThreads(count, adamw(count), { threads: first })),
  ];
}

/**
 * The parts of a routine on the first count of threads, forward beside the reference too, and the whole of it on each further
 * count beside the first.
 */
function onEach(
  [first, ...more]: readonly number[],
  timed: readonly Part[],
  routine: Routine,
  choice: (threads: number) => RoutineChoice,
): Case[] {
  const cases = (count: number, which: readonly Part[]) => routineCases(routine, { ...choice(count), parts: which });
  return [
    ...timed.flatMap((part) =>
      cases(first, [part]).map((item) => onThreads(first, item, { reference: part === "forward" })),
    ),
    ...more.flatMap((count) => cases(count, parts.further).map((item) => onThreads(count, item, { threads: first }))),
  ];
}

export function routineSuiteCases(settings: Settings, threads: readonly number[]): Case[] {
  return [...scanCases(settings, threads), ...bandwidthCases(settings, threads)];
}
