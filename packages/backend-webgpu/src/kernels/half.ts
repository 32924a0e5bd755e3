// Layer: WebGPU kernels. Half-precision arguments of kernels that compute in f32 alone: widened before, narrowed again after.
// Knows views, the copy kernel and memory. Knows no single kernel.

import { type Kernels, sizeOf, type View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";

/** Kernels that widen, with the place of what they write among their arguments. The others take half precision as it is. */
const outputPlaces = {
  unary: 2,
  binary: 3,
  compare: 3,
  reduce: 2,
  argmax: 1,
  cumsum: 1,
  scatterAdd: 2,
  causalConv1d: 1,
  causalConv1dBackward: 1,
  selectiveScan: 1,
  selectiveScanBackward: 1,
  ssdScan: 1,
  ssdScanBackward: 1,
  rmsNorm: 1,
  rmsNormBackward: 1,
  layerNorm: 1,
  layerNormBackward: 1,
  softmaxCrossEntropy: 1,
  softmaxCrossEntropyBackward: 1,
  sample: 1,
  globalNorm: 1,
} as const satisfies Partial<Record<keyof Kernels, number>>;

type Argument = View | readonly View[] | Readonly<Record<string, unknown>> | string | number;

function isView(value: unknown): value is View {
  return typeof value === "object" && value !== null && "buffer" in value && "strides" in value;
}

function isHalf(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (isView(value)) return value.dtype === "bf16" || value.dtype === "f16";
  for (const key in value) if (isHalf((value as Record<string, unknown>)[key])) return true;
  return false;
}

/** Applies `change` to each half-precision view in an argument. */
function mapHalves(value: unknown, change: (view: View) => View): unknown {
  if (!isHalf(value)) return value;
  if (isView(value)) return change(value);
  if (Array.isArray(value)) return value.map((item) => mapHalves(item, change));
  return Object.fromEntries(Object.entries(value as object).map(([key, item]) => [key, mapHalves(item, change)]));
}

type AnyKernel = (...args: Argument[]) => void;

function widening(kernel: AnyKernel, outputPlace: number, context: KernelContext, copy: Kernels["copy"]): AnyKernel {
  return (...args) => {
    if (!args.some(isHalf)) return kernel(...args);
    const results: { readonly wide: View; readonly narrow: View }[] = [];
    const widen = (view: View, isOutput: boolean): View => {
      const wide = context.temporary(view.shape);
      if (isOutput) results.push({ wide, narrow: view });
      else if (sizeOf(view.shape) > 0) copy(view, wide);
      return wide;
    };
    kernel(...args.map((arg, i) => mapHalves(arg, (view) => widen(view, i === outputPlace)) as Argument));
    for (const { wide, narrow } of results) if (sizeOf(narrow.shape) > 0) copy(wide, narrow);
  };
}

/** The same kernels, where those that compute in f32 alone also take half precision. */
export function withHalves(kernels: Kernels, context: KernelContext): Kernels {
  const wrapped = Object.entries(outputPlaces).flatMap(([name, place]) => {
    const kernel = kernels[name as keyof Kernels] as unknown as AnyKernel | undefined;
    return kernel === undefined ? [] : [[name, widening(kernel, place, context, kernels.copy)]];
  });
  return { ...kernels, ...Object.fromEntries(wrapped) };
}
