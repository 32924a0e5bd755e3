// Routines: fused ops whose gradient is a kernel of its own. This file turns a routine's spec (what it takes, the shapes
// it gives, what it saves) into a call: layouts are checked or copied, outputs made, kernels run, the tape told.
// Knows no single routine.

import { type DType, isHalf } from "./dtype.js";
import { BackendError, DTypeError, formatShape, LifetimeError, ShapeError } from "./errors.js";
import { rowPitch, sizeOf } from "./layout.js";
import { floats, needsFloat, needsI32, type OpSpec, sameDevice, statisticsType } from "./op.js";
import type { RoutineKernels } from "./routineKernels.js";
import { scope } from "./scope.js";
import { noGrad, record, records } from "./tape.js";
import type { Tensor } from "./tensor.js";
import type { View } from "./view.js";

/** The routines that a {@link RoutineSpec} describes; the others have calls of their own. */
type SpecName = Exclude<
  keyof RoutineKernels,
  `${string}Backward` | "addRmsNorm" | "ssdDeferred" | "ssdSettle" | "sample" | "adamw" | "globalNorm"
>;

/** What a routine demands of one input. */
export interface InputRule {
  /**
   * How many trailing axes are one contiguous row, the leading ones being stepped through by one pitch; "whole" for a
   * tensor that is contiguous altogether.
   */
  readonly row: number | "whole";
  /** True where the kernel wants the leading axes as one: (R, row). */
  readonly flat?: boolean;
  /**
   * "main" shares the type of the first input; "statistic" is f32, or f64 with f64; "state" is that too, or a recurrent state that is
   * kept in 16 bits between tokens; "i32" an index.
   */
  readonly type: "main" | "statistic" | "state" | "i32";
}

/** Shape of an output; its type as for inputs, of a "state" that of `initialState` where it is given. */
export interface OutputRule {
  readonly shape: readonly number[];
  readonly type: "main" | "statistic" | "state";
}

export type TensorMap = Readonly<Record<string, Tensor | undefined>>;

export interface RoutineSpec<Options> {
  readonly name: SpecName;
  /** In order; the first is the main one, and required. */
  readonly inputs: Readonly<Record<string, InputRule>>;
  readonly required: readonly string[];
  /** The shape rule: throws where inputs do not agree, else gives every output of the kernel. */
  readonly outputs: (
    inputs: Readonly<Record<string, Tensor>>,
    options: Options,
  ) => Readonly<Record<string, OutputRule>>;
  /** How the kernel wants to see each output and the gradient of it. */
  readonly rows: Readonly<Record<string, InputRule>>;
  /** Outputs that have gradients, in the order of the tape. */
  readonly returns: readonly string[];
  /** Outputs that only backward wants. */
  readonly saves: readonly string[];
  /** True where the kernel can do without the outputs that only backward wants: large ones are then not even made. */
  readonly mayOmitSaves?: boolean;
  /** Inputs that have gradients. */
  readonly gradients: readonly string[];
  /** For {@link OpSpec}: what backward computes again. */
  readonly recomputes: string;
  /** The outputs take one pass over memory: those who save them have them made again instead. */
  readonly remakes?: boolean;
}

function checkType(op: string, name: string, x: Tensor, rule: InputRule, main: Tensor): void {
  if (rule.type === "i32") {
    needsI32(op, x, name);
    return;
  }
  needsFloat(op, x, name);
  if (rule.type === "state" && isHalf(x.dtype)) return;
  const wanted = rule.type === "main" ? main.dtype : statisticsType(main.dtype);
  if (x.dtype === wanted) return;
  const known = rule.type === "state" ? `${wanted}, bf16 or f16` : wanted;
  throw new DTypeError(`${op}: ${name} is ${x.dtype}; with ${main.dtype} inputs it must be ${known}.`);
}

/** The tensor itself if its layout is what the kernel takes, else a contiguous copy (an op, so gradients flow). */
function fitLayout(x: Tensor, rule: InputRule): Tensor {
  const fits = rule.row === "whole" ? x.isContiguous() : rowPitch(x, rule.row) !== undefined;
  return fits ? x : x.contiguous();
}

function kernelView(x: Tensor, rule: InputRule): View {
  const view = x.view();
  if (!rule.flat || rule.row === "whole") return view;
  const row = x.shape.slice(x.rank - rule.row);
  const lead = sizeOf(x.shape.slice(0, x.rank - rule.row));
  const pitch = rowPitch(x, rule.row) ?? sizeOf(row);
  return { ...view, shape: [lead, ...row], strides: [pitch, ...view.strides.slice(x.rank - rule.row)] };
}

type Kernel = (inputs: Record<string, View>, outputs: Record<string, View>, options: unknown) => void;

function kernelOf(x: Tensor, name: keyof RoutineKernels): Kernel {
  const { kernels, name: backend } = x.device.backend;
  const kernel = kernels[name];
  if (kernel === undefined) throw new BackendError(`${name}: the backend ${backend} has no such kernel.`);
  return kernel.bind(kernels) as unknown as Kernel;
}

/**
 * Runs a routine: named inputs (undefined where an optional one is absent) to named outputs, those that it returns.
 * @param replaces outputs that are written over an input, by their names
 */
export function runRoutine<Options>(
  spec: RoutineSpec<Options>,
  given: TensorMap,
  options: Options,
  replaces: Readonly<Record<string, string>> = {},
): Record<string, Tensor> {
  const { name: op } = spec;
  const inputs: Record<string, Tensor> = {};
  for (const [name, rule] of Object.entries(spec.inputs)) {
    const x = given[name];
    if (x !== undefined) inputs[name] = fitLayout(x, rule);
    else if (spec.required.includes(name)) throw new ShapeError(`${op}: ${name} is missing.`);
  }
  const names = Object.keys(inputs);
  const main = inputs[names[0]];
  sameDevice(op, main, ...Object.values(inputs));
  for (const name of names) checkType(op, name, inputs[name], spec.inputs[name], main);
  const differentiable = spec.gradients.filter((name) => name in inputs);
  for (const [output, input] of Object.entries(replaces)) {
    const isHere = given[input] !== undefined;
    if (isHere && inputs[input] === given[input] && !records(differentiable.map((name) => inputs[name]))) continue;
    const why = !isHere ? "is missing" : "must be contiguous, and outside a tape";
    throw new LifetimeError(`${op}: ${output} replaces ${input}, which ${why}.`);
  }
  const narrow =
    isHalf(inputs.initialState?.dtype) &&
    !takesNarrow(
      main,
      differentiable.map((name) => inputs[name]),
    );
  if (narrow) return withWideState(spec, inputs, options, "finalState" in replaces);
  const omits = spec.mayOmitSaves && !records(differentiable.map((name) => inputs[name])) ? spec.saves : [];
  const rules = Object.entries(spec.outputs(inputs, options)).filter(([name]) => !omits.includes(name));
  const see = (tensors: Readonly<Record<string, Tensor>>, seen: Readonly<Record<string, InputRule>>) =>
    Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, kernelView(x, seen[name])]));
  const forward = (from: Readonly<Record<string, Tensor>>): Record<string, Tensor> => {
    const { device, dtype } = from[names[0]];
    const stateType = from.initialState?.dtype ?? statisticsType(dtype);
    const typeOf = ({ type }: OutputRule): DType =>
      type === "main" ? dtype : type === "state" ? stateType : statisticsType(dtype);
    const made = rules.map(([name, rule]) => {
      const place = name in replaces ? from[replaces[name]].alias() : device.empty(rule.shape, typeOf(rule));
      return [name, place] as const;
    });
    const outputs = Object.fromEntries(made);
    if (made.some(([, output]) => output.size > 0)) {
      kernelOf(from[names[0]], op)(see(from, spec.inputs), see(outputs, spec.rows), options);
    }
    for (const name of Object.keys(replaces)) outputs[name].storage.version++;
    return outputs;
  };
  const outputs = forward(inputs);

  const savedNames = [...names, ...spec.saves];
  record({
    name: op,
    inputs: differentiable.map((name) => inputs[name]),
    outputs: spec.returns.map((name) => outputs[name]),
    save: savedNames.map((name) => inputs[name] ?? outputs[name]),
    backward: (gradients, saved, sink) => {
      const tensors = Object.fromEntries(savedNames.map((name, i) => [name, saved[i]]));
      const seen: Record<string, InputRule> = { ...spec.inputs, ...spec.rows };
      for (const [i, name] of spec.returns.entries()) {
        const gradient = gradients[i];
        if (gradient === undefined) continue;
        tensors[`d${name}`] = noGrad(() => fitLayout(gradient, spec.rows[name]));
        seen[`d${name}`] = spec.rows[name];
      }
      const places = differentiable.map((name, i) => {
        if (!sink.needs(i)) return undefined;
        seen[`d${name}`] = spec.inputs[name];
        return sink.place(i);
      });
      const results: Record<string, Tensor> = {};
      for (const [i, place] of places.entries()) if (place !== undefined) results[`d${differentiable[i]}`] = place;
      kernelOf(saved[0], `${op}Backward`)(see(tensors, seen), see(results, seen), options);
      return places;
    },
    recompute: spec.remakes
      ? (saved) => {
          const again = forward(Object.fromEntries(names.map((name, i) => [name, saved[i]])));
          drop(spec.saves, again);
          return spec.returns.map((name) => again[name]);
        }
      : undefined,
  });
  drop(spec.saves, outputs);
  return outputs;
}

/** Whether the kernels have a state of 16 bits as it is: of a single token, where nothing is kept for backward. */
function takesNarrow(main: Tensor, differentiable: readonly Tensor[]): boolean {
  return Boolean(main.device.backend.narrowStates) && main.shape[1] === 1 && !records(differentiable);
}

/**
 * A routine whose state is kept in 16 bits, by kernels that have it in f32: widened before, rounded to nearest after. Gradients flow
 * through the rounding as if it were not there.
 */
function withWideState<Options>(
  spec: RoutineSpec<Options>,
  inputs: Readonly<Record<string, Tensor>>,
  options: Options,
  replaces: boolean,
): Record<string, Tensor> {
  const { initialState: state, ...others } = inputs;
  return scope(() => {
    const main = Object.values(others)[0];
    const wide = { ...others, initialState: state.cast(statisticsType(main.dtype)) };
    const outputs = runRoutine(spec, wide, options);
    const rounded = outputs.finalState.cast(state.dtype);
    if (replaces) state.assign(rounded);
    return { ...outputs, finalState: replaces ? state.alias() : rounded };
  });
}

/** Disposes of outputs that only backward wants. */
function drop(names: readonly string[], outputs: Record<string, Tensor>): void {
  for (const name of names) {
    outputs[name]?.dispose();
    delete outputs[name];
  }
}

/** The entry of a routine in the list of ops. */
export function routineSpec<Options>(spec: RoutineSpec<Options>): OpSpec {
  return {
    name: spec.name,
    kind: "routine",
    dtypes: floats,
    accumulates: "f32",
    gradients: spec.gradients,
    saves: `${[...Object.keys(spec.inputs), ...spec.saves].join(", ")}; recomputes ${spec.recomputes}${spec.remakes ? "; its output is made again for who saves it" : ""}`,
  };
}

/** @throws ShapeError unless `x`, where given, has exactly this shape (undefined sizes are free) */
export function expectShape(
  op: string,
  name: string,
  x: Tensor | undefined,
  shape: readonly (number | undefined)[],
): void {
  if (x === undefined) return;
  if (x.rank === shape.length && x.shape.every((n, i) => shape[i] === undefined || n === shape[i])) return;
  const wanted = formatShape(shape.map((n) => n ?? Number.NaN)).replaceAll("NaN", "any");
  throw new ShapeError(`${op}: ${name} is ${formatShape(x.shape)}; it must be ${wanted}.`);
}
