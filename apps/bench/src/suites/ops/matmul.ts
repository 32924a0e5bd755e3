// Layer: apps/bench, suites. Matrix products in every transpose form: squares, and the shapes of a model's projections.
// Knows the product and its peers. Knows no other op.
import { type Device, linear, scope, valueAndGrad } from "@diffmamba/tensor";
import { by, onDevice, uniform } from "../../data.js";
import { multiplyAddLoop } from "../../peers/machine.js";
import { type Form, forms, type MatmulProblem, wasmPeers } from "../../peers/matmul.js";
import { type Case, contest, type Entry, type Settings } from "../../race.js";

export type Size = readonly [m: number, k: number, n: number];

/** The product of two random matrices, on a device. */
export function matmulOn(device: Device, { m, k, n, form, a, b }: MatmulProblem): Entry {
  const left = device.from(a, form[0] === "t" ? [k, m] : [m, k]);
  const right = device.from(b, form[1] === "t" ? [n, k] : [k, n]);
  const [x, y] = [
    form[0] === "t" ? left.transpose() : left.alias(),
    form[1] === "t" ? right.transpose() : right.alias(),
  ];
  return onDevice(device, {
    work: { "GFLOP/s": 2 * m * k * n },
    holds: [left, right, x, y],
    run: () => scope(() => void x.matmul(y)),
    outputs: () => [x.matmul(y)],
  });
}

export function problem([m, k, n]: Size, form: Form): MatmulProblem {
  return { m, k, n, form, a: uniform("a", m * k), b: uniform("b", k * n) };
}

/** A device's own rate of matrix products, as a limit to what is made of them. */
export function ownMatmul(device: Device, size: number): Entry {
  const entry = matmulOn(device, problem([size, size, size], "nn"));
  return { ...entry, name: `matmul nn ${by(size, size, size)}, same backend` };
}

function matmulCase(size: Size, form: Form): Case {
  return {
    name: `matmul ${form}`,
    shape: by(...size),
    prepare(context) {
      const given = problem(size, form);
      const peers = wasmPeers.map(({ name, open }) => ({ name, open: () => open(given, 1) }));
      const race = contest({
        name: `matmul ${form}`,
        shape: by(...size),
        unit: "GFLOP/s",
        ours: (device) => matmulOn(device, given),
        peers,
        ceilings: () => [multiplyAddLoop()],
      });
      return race.prepare(context);
    },
  };
}

/** A layer x W^T with both of its gradients: three products. */
function linearCase([rows, inputs, outputs]: Size): Case {
  return contest({
    name: "linear forward+backward",
    shape: by(rows, inputs, outputs),
    unit: "GFLOP/s",
    ceilings: () => [multiplyAddLoop()],
    tolerance: 1e-4,
    ours(device) {
      const x = device.from(uniform("x", rows * inputs), [rows, inputs]);
      const weight = device.from(uniform("weight", inputs * outputs), [outputs, inputs]);
      const gradients = () => valueAndGrad(() => linear(x, weight).sum(), [x, weight]).gradients;
      return onDevice(device, {
        work: { "GFLOP/s": 6 * rows * inputs * outputs },
        holds: [x, weight],
        run: () => scope(() => void gradients()),
        outputs: () => scope(gradients),
      });
    },
  });
}

/** Columns of a Mamba-2 mixer's input projection: z, x, B, C and dt. */
export function projectionColumns(dModel: number, dState: number, headDim: number): number {
  return 4 * dModel + 2 * dState + Math.ceil((2 * dModel) / headDim);
}

export function matmulCases({ square, batch, length, dModel, dState, headDim, wide }: Settings): Case[] {
  const cases: Case[] = [];
  for (let size = Math.min(64, square); size <= square; size *= 2) {
    for (const form of forms) cases.push(matmulCase([size, size, size], form));
  }
  const tokens = batch * length;
  const inProjection: Size = [tokens, dModel, projectionColumns(dModel, dState, headDim)];
  const outProjection: Size = [tokens, 2 * dModel, dModel];
  for (const size of [inProjection, outProjection, [256, wide, 2 * wide]] as const) {
    for (const form of forms) cases.push(matmulCase(size, form));
  }
  // One token through the input projection of a model of 130M parameters, with its state of 128 and heads of 64.
  cases.push(matmulCase([1, wide, projectionColumns(wide, 128, 64)], "nt"));
  cases.push(linearCase(inProjection));
  return cases;
}
