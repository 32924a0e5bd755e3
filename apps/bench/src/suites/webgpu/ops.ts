// Layer: apps/bench, suites of the WebGPU backend. Limits, matrix products, what moves much and computes little, and the scans.
// Knows ops and the adapter's limits. Knows no kernel.
import { type Device, scope, type Tensor } from "@diffmamba/tensor";
import { by, onDevice, uniform } from "../../data.js";
import type { Form } from "../../peers/matmul.js";
import { type Case, contest, type Entry, rowsOf, type Settings } from "../../race.js";
import type { Unit } from "../../row.js";
import { adamwCase } from "../ops/elementwise.js";
import { routineCases } from "../ops/kernel.js";
import { matmulOn, problem, projectionColumns, type Size } from "../ops/matmul.js";
import { causalConv1d, crossEntropy, gatedNorm, selectiveScan, ssdScan } from "../ops/routines.js";
import { multiplyAdds, shaderCopy } from "./limits.js";

const F32_BYTES = 4;

function limitCase(name: string, shape: string, unit: Unit, make: (device: Device) => Entry): Case {
  return {
    name,
    shape,
    async prepare({ devices: [device], enter }) {
      const entry = enter(make(device));
      return { entries: [entry], checks: [], rows: (times) => rowsOf({ name, shape, unit }, entry, [], times) };
    },
  };
}

export function limitCases(settings: Settings): Case[] {
  const { elements } = settings;
  const bytes = 2 * F32_BYTES * elements;
  return [
    limitCase("multiply-add loop", "in registers", "GFLOP/s", (device) => multiplyAdds(device, settings)),
    limitCase("shader copy", `${bytes} bytes`, "GB/s", (device) => shaderCopy(device, bytes)),
  ];
}

function productCase(settings: Settings, size: Size, form: Form, role: string): Case {
  return contest({
    name: `matmul ${form}`,
    shape: `${by(...size)} ${role}`,
    unit: "GFLOP/s",
    ours: (device) => matmulOn(device, problem(size, form)),
    ceilings: (device) => [multiplyAdds(device, settings)],
  });
}

export function productCases(settings: Settings): Case[] {
  const { square, tokens, dModel, dState, headDim, vocabSize } = settings;
  const columns = projectionColumns(dModel, dState, headDim);
  const linear = (role: string, inputs: number, outputs: number): Case[] => [
    productCase(settings, [tokens, inputs, outputs], "nt", role),
    productCase(settings, [tokens, outputs, inputs], "nn", `${role}, gradient of x`),
    productCase(settings, [outputs, tokens, inputs], "tn", `${role}, gradient of W`),
  ];
  return [
    productCase(settings, [square, square, square], "nn", "cube"),
    ...linear("in-projection", dModel, columns),
    ...linear("out-projection", 2 * dModel, dModel),
    productCase(settings, [tokens / 4, dModel, vocabSize], "nt", "head"),
  ];
}

/** `make` gives the tensors that one run makes, of `count` operands of so many elements. */
function elementwiseCase(
  name: string,
  elements: number,
  {
    count,
    moved,
    make,
  }: { readonly count: number; readonly moved: number; readonly make: (...x: readonly Tensor[]) => Tensor },
): Case {
  const columns = 1 << Math.min(12, Math.floor(Math.log2(elements)));
  const rows = Math.floor(elements / columns);
  return contest({
    name,
    shape: by(rows, columns),
    unit: "GB/s",
    ceilings: (device) => [shaderCopy(device, moved)],
    ours(device) {
      // A row, many times: drawing all would take longer than the case.
      using row = device.from(uniform("row", columns, 0.1, 1), [1, columns]);
      using zeros = device.zeros([rows, columns]);
      const operands = Array.from({ length: count }, () => row.add(zeros));
      return onDevice(device, {
        work: { "GB/s": moved },
        holds: operands,
        run: () => scope(() => void make(...operands)),
      });
    },
  });
}

export function bandwidthCases(settings: Settings): Case[] {
  const { elements, dModel, vocabSize } = settings;
  const bytes = F32_BYTES * elements;
  // So many rows of 2 dModel that a tensor has as many bytes as there.
  const rows = { ...settings, batch: 1, length: Math.max(1, Math.ceil(elements / (2 * dModel))) };
  const logits = { batch: 1, length: Math.max(1, Math.ceil(elements / vocabSize)), vocabSize };
  const ceilings = (device: Device, moved: number) => [shaderCopy(device, moved)];
  const conv = {
    ...settings,
    batch: 1,
    length: Math.max(1, Math.ceil(elements / (2 * settings.dModel + 2 * settings.dState))),
  };
  return [
    elementwiseCase("add", elements, { count: 2, moved: 3 * bytes, make: (x, y) => x.add(y) }),
    elementwiseCase("silu", elements, { count: 1, moved: 2 * bytes, make: (x) => x.silu() }),
    elementwiseCase("exp", elements, { count: 1, moved: 2 * bytes, make: (x) => x.exp() }),
    elementwiseCase("sum of rows", elements, { count: 1, moved: bytes, make: (x) => x.sum(1) }),
    elementwiseCase("sum of columns", elements, { count: 1, moved: bytes, make: (x) => x.sum(0) }),
    ...[gatedNorm(rows), crossEntropy(logits), causalConv1d(conv)].flatMap((routine) =>
      routineCases(routine, { unit: "GB/s", ceilings }),
    ),
    adamwCase(elements, { unit: "GB/s", ceilings: (device) => [shaderCopy(device, 7 * bytes)] }),
  ];
}

export function scanCases(settings: Settings): Case[] {
  const { scanBatch, scanLength } = settings;
  const sizes = { ...settings, batch: scanBatch, length: scanLength };
  const ceilings = (device: Device, moved: number) => [shaderCopy(device, moved)];
  const parts = ["forward", "backward", "forward+backward"] as const;
  return [selectiveScan(sizes), ssdScan(sizes)].flatMap((routine) =>
    routineCases(routine, { unit: "ms", parts, ceilings }),
  );
}
