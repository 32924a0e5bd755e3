// Layer: apps/bench, suites. Elementwise functions, reductions and the optimizer: work that memory limits, beside a copy that
// moves as many bytes. Knows those ops.
import { adamw, type Device, globalNorm, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import { by, onDevice, uniform } from "../../data.js";
import { memoryCopy } from "../../peers/machine.js";
import { type Case, type Contest, contest, type Settings } from "../../race.js";

type Shape = readonly [rows: number, columns: number];

const F32_BYTES = 4;

/** y of each operand's shape, from one operand or two. */
interface Op {
  readonly name: string;
  readonly operands: readonly ("matrix" | "row")[];
  /** Elements of the result. */
  readonly results: (shape: Shape) => number;
  readonly call: (...operands: readonly Tensor[]) => Tensor;
}

const all = ([rows, columns]: Shape) => rows * columns;

const ops: readonly Op[] = [
  { name: "add", operands: ["matrix", "matrix"], results: all, call: (x, y) => x.add(y) },
  { name: "mul by a row", operands: ["matrix", "row"], results: all, call: (x, y) => x.mul(y) },
  { name: "exp", operands: ["matrix"], results: all, call: (x) => x.exp() },
  { name: "silu", operands: ["matrix"], results: all, call: (x) => x.silu() },
  { name: "sum", operands: ["matrix"], results: () => 1, call: (x) => x.sum() },
  { name: "sum of rows", operands: ["matrix"], results: ([rows]) => rows, call: (x) => x.sum(1) },
  { name: "sum of columns", operands: ["matrix"], results: ([, columns]) => columns, call: (x) => x.sum(0) },
];

function operandsOn(device: Device, op: Op, [rows, columns]: Shape): Tensor[] {
  return op.operands.map((kind, i) =>
    kind === "matrix"
      ? device.from(uniform(`operand ${i}`, rows * columns), [rows, columns])
      : device.from(uniform(`operand ${i}`, columns), [columns]),
  );
}

function opCases(op: Op, shape: Shape): Case[] {
  const sizes = op.operands.map((kind) => (kind === "matrix" ? all(shape) : shape[1]));
  const read = sizes.reduce((sum, n) => sum + n, 0);
  const forward = contest({
    name: `${op.name} forward`,
    shape: by(...shape),
    unit: "ms",
    ceilings: () => [memoryCopy(F32_BYTES * (read + op.results(shape)))],
    ours(device) {
      const operands = operandsOn(device, op, shape);
      return onDevice(device, {
        work: { ms: 1 },
        holds: operands,
        run: () => scope(() => void op.call(...operands)),
        outputs: () => [op.call(...operands)],
      });
    },
  });
  const both = contest({
    name: `${op.name} forward+backward`,
    shape: by(...shape),
    unit: "ms",
    tolerance: 1e-4,
    ours(device) {
      const operands = operandsOn(device, op, shape);
      const gradients = () => valueAndGrad(() => op.call(...operands).sum(), operands).gradients;
      return onDevice(device, {
        work: { ms: 1 },
        holds: operands,
        run: () => scope(() => void gradients()),
        outputs: () => scope(gradients),
      });
    },
  });
  return [forward, both];
}

/** One optimizer step reads a parameter, its gradient and two moments, and writes all but the gradient. */
export function adamwBytes(parameters: number): number {
  return 7 * F32_BYTES * parameters;
}

/** The optimizer step, counted in time or in the bytes that it must move. */
export function adamwCase(
  parameters: number,
  { unit, peers, ceilings }: Pick<Contest, "unit" | "peers" | "ceilings">,
): Case {
  return contest({
    ...{
      name: "adamw step",
      shape: `${parameters} parameters`,
      unit,
      ...(peers && { peers }),
      ...(ceilings && { ceilings }),
    },
    ours(device) {
      const vector = (name: string) => device.from(uniform(name, parameters), [parameters]);
      const [param, gradient] = [vector("parameters"), vector("gradient")];
      const [m, v] = [device.zeros([parameters]), device.zeros([parameters])];
      const tensors = {
        ...{ params: [param], grads: [gradient], m: [m], v: [v] },
        ...{ lr: device.full([], 1e-3), step: device.zeros([], "i32"), scale: device.ones([]), norm: device.ones([]) },
      };
      return onDevice(device, {
        work: { ms: 1, "GB/s": adamwBytes(parameters) },
        holds: [param, gradient, m, v, tensors.lr, tensors.step, tensors.scale, tensors.norm],
        run: () => adamw(tensors, { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: [0.1] }),
      });
    },
  });
}

function globalNormCase(parameters: number): Case {
  return contest({
    name: "global norm",
    shape: `${parameters} parameters`,
    unit: "ms",
    ceilings: () => [memoryCopy(F32_BYTES * parameters)],
    ours(device) {
      const gradient = device.from(uniform("gradient", parameters), [parameters]);
      return onDevice(device, {
        work: { ms: 1 },
        holds: [gradient],
        run: () => scope(() => void globalNorm([gradient])),
        outputs: () => [globalNorm([gradient])],
      });
    },
  });
}

export function elementwiseCases({ batch, length, dModel }: Settings): Case[] {
  const shape: Shape = [batch * length, 2 * dModel];
  return ops.flatMap((op) => opCases(op, shape));
}

export function optimizerCases({ parameters }: Settings): Case[] {
  const ceilings = () => [memoryCopy(adamwBytes(parameters))];
  return [adamwCase(parameters, { unit: "ms", ceilings }), globalNormCase(parameters)];
}
