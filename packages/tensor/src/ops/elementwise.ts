// Elementwise ops of one, two and three tensors, with NumPy's broadcasting; each function's gradient in one table.
// Knows shapes, types and gradients. Knows no loop: those are the kernels'.

import type { BinaryOp, CompareOp, UnaryOp } from "../backend.js";
import { DTypeError } from "../errors.js";
import { broadcastShapes, broadcastTo } from "../layout.js";
import { allTypes, floats, needsFloat, type OpSpec, sameDevice, sameType } from "../op.js";
import { record } from "../tape.js";
import type { Operand, Tensor } from "../tensor.js";
import type { View } from "../view.js";
import { sumTo } from "./reduce.js";

interface UnaryRule {
  /** What the gradient is computed from. */
  readonly saves: "x" | "y" | "nothing";
  /** dx from dy and the saved value. */
  readonly gradient?: (dy: Tensor, saved: Tensor) => Tensor;
}

const twoOverSqrtPi = 2 / Math.sqrt(Math.PI);

/** The gradient of every function of one argument. */
const unaryRules: Readonly<Record<UnaryOp, UnaryRule>> = {
  neg: { saves: "nothing", gradient: (dy) => dy.neg() },
  abs: { saves: "x", gradient: (dy, x) => dy.mul(x.sign()) },
  sign: { saves: "nothing" },
  exp: { saves: "y", gradient: (dy, y) => dy.mul(y) },
  log: { saves: "x", gradient: (dy, x) => dy.div(x) },
  sqrt: { saves: "y", gradient: (dy, y) => dy.mul(0.5).div(y) },
  rsqrt: { saves: "y", gradient: (dy, y) => dy.mul(y.square().mul(y)).mul(-0.5) },
  square: { saves: "x", gradient: (dy, x) => dy.mul(x).mul(2) },
  reciprocal: { saves: "y", gradient: (dy, y) => dy.mul(y.square()).neg() },
  // sigma'(x) = sigma(x) sigma(-x): exact where 1 - sigma(x) would cancel.
  sigmoid: { saves: "x", gradient: (dy, x) => dy.mul(x.sigmoid()).mul(x.neg().sigmoid()) },
  tanh: { saves: "y", gradient: (dy, y) => dy.mul(y.square().neg().add(1)) },
  softplus: { saves: "x", gradient: (dy, x) => dy.mul(x.sigmoid()) },
  // silu'(x) = sigma(x) (1 + x sigma(-x))
  silu: { saves: "x", gradient: (dy, x) => dy.mul(x.sigmoid()).mul(x.mul(x.neg().sigmoid()).add(1)) },
  erf: { saves: "x", gradient: (dy, x) => dy.mul(x.square().neg().exp()).mul(twoOverSqrtPi) },
};

/** An elementwise function of one argument, of floats. */
export function unary(op: UnaryOp, x: Tensor): Tensor {
  needsFloat(op, x);
  const y = x.device.empty(x.shape, x.dtype);
  if (x.size > 0) x.device.backend.kernels.unary(op, x.view(), y.view());
  const { saves, gradient } = unaryRules[op];
  if (gradient !== undefined) {
    record({
      name: op,
      inputs: [x],
      outputs: [y],
      save: saves === "nothing" ? [] : [saves === "x" ? x : y],
      backward: ([dy], [saved]) => [dy && gradient(dy, saved)],
    });
  }
  return y;
}

interface BinaryRule {
  readonly saves: boolean;
  readonly da?: (dy: Tensor, a: Tensor, b: Tensor) => Tensor;
  readonly db?: (dy: Tensor, a: Tensor, b: Tensor) => Tensor;
}

function choose(condition: Tensor, dy: Tensor): Tensor {
  return condition.where(dy, dy.device.zeros([], dy.dtype));
}

/** The gradients of every function of two arguments, before summing over repeated axes. */
const binaryRules: Readonly<Record<BinaryOp, BinaryRule>> = {
  add: { saves: false, da: (dy) => dy, db: (dy) => dy },
  sub: { saves: false, da: (dy) => dy, db: (dy) => dy.neg() },
  mul: { saves: true, da: (dy, _a, b) => dy.mul(b), db: (dy, a) => dy.mul(a) },
  div: { saves: true, da: (dy, _a, b) => dy.div(b), db: (dy, a, b) => dy.mul(a).div(b.square()).neg() },
  // Where both are equal the gradient goes to the first.
  max: { saves: true, da: (dy, a, b) => choose(b.lessEqual(a), dy), db: (dy, a, b) => choose(a.less(b), dy) },
  min: { saves: true, da: (dy, a, b) => choose(a.lessEqual(b), dy), db: (dy, a, b) => choose(b.less(a), dy) },
  pow: {
    saves: true,
    da: (dy, a, b) => dy.mul(b).mul(a.pow(b.sub(1))),
    db: (dy, a, b) => dy.mul(a.pow(b)).mul(a.log()),
  },
};

/** The operand as a tensor beside `like`. */
function operand(value: Operand, like: Tensor): Tensor {
  return typeof value === "number" ? like.device.full([], value, like.dtype) : value;
}

/** Both operands' views, broadcast to their common shape. */
function broadcast(op: string, a: Tensor, b: Tensor): { shape: number[]; a: View; b: View } {
  sameDevice(op, a, b);
  sameType(op, a, b);
  const shape = broadcastShapes(op, a.shape, b.shape);
  return {
    shape,
    a: { ...a.view(), ...broadcastTo(op, a, shape) },
    b: { ...b.view(), ...broadcastTo(op, b, shape) },
  };
}

/** An elementwise function of two tensors of one type, broadcast. A number stands for a tensor of one element. */
export function binary(op: BinaryOp, a: Tensor, other: Operand): Tensor {
  const constant = typeof other === "number";
  const b = operand(other, a);
  const views = broadcast(op, a, b);
  const y = a.device.empty(views.shape, a.dtype);
  if (y.size > 0) a.device.backend.kernels.binary(op, views.a, views.b, y.view());
  const { saves, da, db } = binaryRules[op];
  const shapes = [a.shape, b.shape];
  record({
    name: op,
    inputs: [a, b],
    outputs: [y],
    save: saves ? [a, b] : [],
    backward: ([dy], [left, right], sink) => {
      if (dy === undefined) return [];
      return [da, db].map((rule, i) =>
        rule !== undefined && sink.needs(i) ? sumTo(rule(dy, left, right), shapes[i]) : undefined,
      );
    },
  });
  if (constant) b.dispose();
  return y;
}

/** target *= other, of one type; `other` is broadcast. Outside a tape. */
export function mulInPlace(target: Tensor, other: Tensor): void {
  const views = broadcast("mul", target, other);
  if (target.size > 0) target.device.backend.kernels.binary("mul", target.view(), views.b, target.view());
  target.storage.version++;
}

/** target += other, of one shape and type. For gradients and caches, outside a tape. */
export function addInPlace(target: Tensor, other: Tensor): void {
  const views = broadcast("add", target, other);
  if (target.size > 0) target.device.backend.kernels.binary("add", target.view(), views.b, target.view());
  target.storage.version++;
}

/** A comparison of two tensors of one type, broadcast -> u8. */
export function compare(op: CompareOp, a: Tensor, other: Operand): Tensor {
  const b = operand(other, a);
  const views = broadcast(op, a, b);
  const y = a.device.empty(views.shape, "u8");
  if (y.size > 0) a.device.backend.kernels.compare(op, views.a, views.b, y.view());
  if (typeof other === "number") b.dispose();
  return y;
}

/** condition (u8) ? a : b, broadcast. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  sameDevice("where", condition, a, b);
  sameType("where", a, b);
  if (condition.dtype !== "u8") throw new DTypeError(`where: the condition is ${condition.dtype}; it must be u8.`);
  const shape = broadcastShapes("where", broadcastShapes("where", condition.shape, a.shape), b.shape);
  const [c, x, z] = [condition, a, b].map((t) => ({ ...t.view(), ...broadcastTo("where", t, shape) }));
  const y = a.device.empty(shape, a.dtype);
  if (y.size > 0) a.device.backend.kernels.where(c, x, z, y.view());
  const shapes = [a.shape, b.shape];
  record({
    name: "where",
    inputs: [a, b],
    outputs: [y],
    save: [condition],
    backward: ([dy], [cond], sink) => {
      if (dy === undefined) return [];
      const zero = dy.device.zeros([], dy.dtype);
      return [
        sink.needs(0) ? sumTo(where(cond, dy, zero), shapes[0]) : undefined,
        sink.needs(1) ? sumTo(where(cond, zero, dy), shapes[1]) : undefined,
      ];
    },
  });
  return y;
}

export const specs: readonly OpSpec[] = [
  ...Object.entries(unaryRules).map(([name, { saves, gradient }]): OpSpec => {
    return { name, kind: "primitive", dtypes: floats, accumulates: "none", gradients: gradient ? ["x"] : [], saves };
  }),
  ...Object.entries(binaryRules).map(([name, { saves }]): OpSpec => {
    const what = saves ? "a, b" : "nothing";
    return { name, kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: ["a", "b"], saves: what };
  }),
  ...(["eq", "lt", "le"] satisfies CompareOp[]).map((name): OpSpec => {
    return { name, kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: [], saves: "nothing" };
  }),
  {
    name: "where",
    kind: "primitive",
    dtypes: allTypes,
    accumulates: "none",
    gradients: ["a", "b"],
    saves: "condition",
  },
];
