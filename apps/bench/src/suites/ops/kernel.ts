// Layer: apps/bench, suites. Times one routine's kernel of a backend, the kernel of its gradient, and both in a row, without tape or
// allocation. Knows the Backend interface. Knows no single routine.
import type { Device, RoutineKernels, Tensor, View } from "@diffmamba/tensor";
import { count, onDevice } from "../../data.js";
import { memoryCopy } from "../../peers/machine.js";
import { type Case, contest, type Entry, type Peer } from "../../race.js";
import type { Unit } from "../../row.js";

export interface HostInput {
  readonly shape: readonly number[];
  /** Made when the case is run, not when it is listed. */
  data(): Float32Array | Int32Array;
}

/** The kernels that have another one for the gradient. */
type Differentiable<K = keyof RoutineKernels> = K extends string
  ? `${K}Backward` extends keyof RoutineKernels
    ? K
    : never
  : never;

/** A routine as the Backend interface has it, with sizes. */
export interface Routine {
  /** The kernel; `${kernel}Backward` is that of its gradient. */
  readonly kernel: Differentiable;
  /** As in the rows. */
  readonly name: string;
  readonly shape: string;
  readonly inputs: Readonly<Record<string, HostInput>>;
  /** Shapes of all outputs of the kernel. */
  readonly outputs: Readonly<Record<string, readonly number[]>>;
  /** The output whose gradient backward is given. */
  readonly main: string;
  /** Outputs that backward takes as inputs. */
  readonly saves: readonly string[];
  /** Inputs whose gradients backward writes. */
  readonly gradients: readonly string[];
  readonly options: object;
  /** How much forward and backward each do; time, and the bytes that each must move, are counted without it. */
  readonly work?: Readonly<Record<"forward" | "backward", Entry["work"]>>;
}

export type Part = "forward" | "backward" | "forward+backward";

/** What the rows of a routine say, and beside what. */
export interface RoutineChoice {
  /** One of the routine's work, "ms", or "GB/s" of the bytes that it must move. */
  readonly unit: Unit;
  /** A row for each; forward and backward by default. */
  readonly parts?: readonly Part[];
  /** Limits of the machine; by default, for "ms", a copy of the bytes that must be moved. */
  readonly peers?: (bytes: number) => readonly Peer[];
  /** Limits that a device sets to itself, given the bytes that must be moved. */
  readonly ceilings?: (device: Device, bytes: number) => readonly Entry[];
}

type Kernel = (inputs: Record<string, View>, outputs: Record<string, View>, options: object) => void;

function kernelOf(device: Device, name: keyof RoutineKernels): Kernel {
  const { kernels } = device.backend;
  const kernel = kernels[name];
  if (kernel === undefined) throw new Error(`the backend ${device.name} has no kernel ${name}`);
  return kernel.bind(kernels) as unknown as Kernel;
}

function views(tensors: Readonly<Record<string, Tensor>>): Record<string, View> {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, tensor.view()]));
}

/** The routine's tensors on a device. */
function tensorsOn(device: Device, { inputs, outputs }: Routine) {
  const load = ([name, input]: [string, HostInput]) => {
    const data = input.data();
    return [name, device.from(data, input.shape, data instanceof Int32Array ? "i32" : "f32")] as const;
  };
  return {
    inputs: Object.fromEntries(Object.entries(inputs).map(load)),
    outputs: Object.fromEntries(Object.entries(outputs).map(([name, shape]) => [name, device.empty(shape)])),
  };
}

/** The kernel on a device: what it writes, and what it holds. */
function forwardOn(device: Device, routine: Routine) {
  const kernel = kernelOf(device, routine.kernel);
  const { inputs, outputs } = tensorsOn(device, routine);
  const [from, to] = [views(inputs), views(outputs)];
  const run = () => kernel(from, to, routine.options);
  return { inputs, outputs, written: [outputs[routine.main]], run };
}

/** The kernel of the gradient, after one run of the other, which left the outputs that it takes. */
function backwardOn(device: Device, routine: Routine) {
  const forward = forwardOn(device, routine);
  const { inputs, outputs } = forward;
  const kernel = kernelOf(device, `${routine.kernel}Backward`);
  const cotangent = device.ones(outputs[routine.main].shape);
  const saved = Object.fromEntries(routine.saves.map((name) => [name, outputs[name]]));
  const gradients = Object.fromEntries(routine.gradients.map((name) => [`d${name}`, device.empty(inputs[name].shape)]));
  const from = views({ ...inputs, ...saved, [`d${routine.main}`]: cotangent });
  const to = views(gradients);
  const run = () => kernel(from, to, routine.options);
  forward.run();
  return {
    inputs: { ...inputs, cotangent },
    outputs: { ...outputs, ...gradients },
    written: Object.values(gradients),
    run,
    forward,
  };
}

function partOn(device: Device, routine: Routine, part: Part, work: Entry["work"]): Entry {
  const backward = part === "forward" ? undefined : backwardOn(device, routine);
  const { inputs, outputs, written, run: last } = backward ?? forwardOn(device, routine);
  const run = () => {
    if (part === "forward+backward") backward?.forward.run();
    last();
  };
  return onDevice(device, {
    work,
    holds: [...Object.values(inputs), ...Object.values(outputs)],
    run,
    outputs() {
      run();
      return written.map((tensor) => tensor.clone());
    },
  });
}

function elements(shapes: Iterable<readonly number[]>): number {
  return [...shapes].reduce((sum, shape) => sum + count(...shape), 0);
}

/** Bytes that forward and backward must move: each input read and each output written, once. */
function bytesOf({ inputs, outputs, gradients, saves, main }: Routine) {
  const read = elements(Object.values(inputs).map((input) => input.shape));
  const taken = elements([main, ...saves].map((output) => outputs[output]));
  const given = elements(gradients.map((input) => inputs[input].shape));
  return { forward: 4 * (read + elements(Object.values(outputs))), backward: 4 * (read + taken + given) };
}

/** The work of a part: operations add up, a state's updates are those of the sequence, however often it is gone through. */
function workOf({ work }: Routine, halves: readonly ("forward" | "backward")[]): Entry["work"] {
  const works = halves.map((half) => work?.[half] ?? {});
  const flops = works.reduce((sum, one) => sum + (one["GFLOP/s"] ?? 0), 0);
  return { ...works[0], ...(flops > 0 && { "GFLOP/s": flops }) };
}

/** A row for the routine, one for its gradient, or whatever parts are asked for. */
export function routineCases(routine: Routine, choice: RoutineChoice): Case[] {
  const { unit, parts = ["forward", "backward"], peers, ceilings } = choice;
  const bytes = bytesOf(routine);
  return parts.map((part) => {
    const halves = part === "forward+backward" ? (["forward", "backward"] as const) : ([part] as const);
    const moved = halves.reduce((sum, half) => sum + bytes[half], 0);
    const work = { ...workOf(routine, halves), ms: 1, "GB/s": moved };
    const limits = peers?.(moved) ?? [];
    const copies = peers === undefined && ceilings === undefined && unit === "ms";
    return contest({
      ...{ name: `${routine.name} ${part}`, shape: routine.shape, unit, peers: limits },
      ours: (device) => partOn(device, routine, part, work),
      tolerance: part === "forward" ? 1e-5 : 1e-4,
      ceilings: (device) => (copies ? [memoryCopy(moved)] : (ceilings?.(device, moved) ?? [])),
    });
  });
}
