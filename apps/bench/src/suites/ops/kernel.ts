// Layer: apps/bench, suites. Times one routine's kernel of a backend and the kernel of its gradient, without tape or allocation.
// Knows the Backend interface. Knows no single routine.
import type { Device, RoutineKernels, Tensor, View } from "@diffmamba/tensor";
import { count, onDevice } from "../../data.js";
import { memoryCopy } from "../../peers/machine.js";
import { type Case, contest, type Entry } from "../../race.js";
import type { Unit } from "../../row.js";

export interface HostInput {
  readonly shape: readonly number[];
  /** Made when the case is run, not when it is listed. */
  data(): Float32Array | Int32Array;
}

/** A routine as the Backend interface has it, with sizes. */
export interface Routine {
  /** The kernel; `${kernel}Backward` is that of its gradient. */
  readonly kernel: Exclude<keyof RoutineKernels, `${string}Backward` | "adamw" | "globalNorm">;
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
  /** What forward and backward are counted in, and how much of it one run of either does. */
  readonly unit: Unit;
  readonly work: Entry["work"];
  /** Limits beside which both are set; by default, for work in "ms", a copy of the bytes that each must move. */
  readonly ceilings?: (device: Device) => readonly Entry[];
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

function forwardOn(device: Device, routine: Routine): Entry {
  const kernel = kernelOf(device, routine.kernel);
  const { inputs, outputs } = tensorsOn(device, routine);
  const [from, to] = [views(inputs), views(outputs)];
  const run = () => kernel(from, to, routine.options);
  return onDevice(device, {
    work: routine.work,
    holds: [...Object.values(inputs), ...Object.values(outputs)],
    run,
    outputs() {
      run();
      return [outputs[routine.main].clone()];
    },
  });
}

function backwardOn(device: Device, routine: Routine): Entry {
  const kernel = kernelOf(device, `${routine.kernel}Backward`);
  const { inputs, outputs } = tensorsOn(device, routine);
  kernelOf(device, routine.kernel)(views(inputs), views(outputs), routine.options);
  const cotangent = device.ones(outputs[routine.main].shape);
  const saved = Object.fromEntries(routine.saves.map((name) => [name, outputs[name]]));
  const gradients = Object.fromEntries(routine.gradients.map((name) => [`d${name}`, device.empty(inputs[name].shape)]));
  const from = views({ ...inputs, ...saved, [`d${routine.main}`]: cotangent });
  const to = views(gradients);
  const run = () => kernel(from, to, routine.options);
  return onDevice(device, {
    work: routine.work,
    holds: [cotangent, ...Object.values({ ...inputs, ...outputs, ...gradients })],
    run,
    outputs() {
      run();
      return Object.values(gradients).map((gradient) => gradient.clone());
    },
  });
}

function elements(shapes: Iterable<readonly number[]>): number {
  return [...shapes].reduce((sum, shape) => sum + count(...shape), 0);
}

/** A row for the routine and one for its gradient. */
export function routineCases(routine: Routine): Case[] {
  const { name, shape, unit, inputs, outputs, gradients, saves, main } = routine;
  const read = elements(Object.values(inputs).map((input) => input.shape));
  const forwardBytes = 4 * (read + elements(Object.values(outputs)));
  const backwardReads = read + elements([main, ...saves].map((output) => outputs[output]));
  const backwardBytes = 4 * (backwardReads + elements(gradients.map((input) => inputs[input].shape)));
  const limits = (bytes: number) => routine.ceilings ?? (unit === "ms" ? () => [memoryCopy(bytes)] : undefined);
  const half = (part: string, bytes: number, ours: (device: Device) => Entry, tolerance: number) => {
    const ceilings = limits(bytes);
    return contest({ name: `${name} ${part}`, shape, unit, ours, tolerance, ...(ceilings && { ceilings }) });
  };
  return [
    half("forward", forwardBytes, (device) => forwardOn(device, routine), 1e-5),
    half("backward", backwardBytes, (device) => backwardOn(device, routine), 1e-4),
  ];
}
