// Half-precision arguments of kernels that compute in f32 alone: widened before, narrowed again after.
// Knows views, the copy kernel and memory. Knows no single kernel.

import { type BackendBuffer, contiguousStrides, type Kernels, sizeOf, type View } from "@diffmamba/tensor";

export interface HalfTools {
  allocate(bytes: number): BackendBuffer;
  free(buffer: BackendBuffer): void;
  copy(from: View, to: View): void;
}

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
  addRmsNorm: 1,
  addRmsNormBackward: 1,
  layerNorm: 1,
  layerNormBackward: 1,
  softmaxCrossEntropy: 1,
  softmaxCrossEntropyBackward: 1,
  sample: 1,
} as const satisfies Partial<Record<keyof Kernels, number>>;

type Argument = View | readonly View[] | Readonly<Record<string, unknown>> | string | number;

function isView(value: unknown): value is View {
  return typeof value === "object" && value !== null && "buffer" in value && "strides" in value;
}

function isHalf(value: unknown): boolean {
  if (isView(value)) return value.dtype === "bf16" || value.dtype === "f16";
  return typeof value === "object" && value !== null && Object.values(value).some(isHalf);
}

/** Applies `change` to each half-precision view in an argument. */
function mapHalves(value: unknown, change: (view: View) => View): unknown {
  if (!isHalf(value)) return value;
  if (isView(value)) return change(value);
  if (Array.isArray(value)) return value.map((item) => mapHalves(item, change));
  return Object.fromEntries(Object.entries(value as object).map(([key, item]) => [key, mapHalves(item, change)]));
}

type AnyKernel = (...args: Argument[]) => void;

function widening(kernel: AnyKernel, outputPlace: number, tools: HalfTools): AnyKernel {
  return (...args) => {
    if (!args.some(isHalf)) return kernel(...args);
    const buffers: BackendBuffer[] = [];
    const results: { readonly wide: View; readonly narrow: View }[] = [];
    const widen = (view: View, isOutput: boolean): View => {
      const { shape } = view;
      const buffer = tools.allocate(4 * sizeOf(shape));
      buffers.push(buffer);
      const wide: View = { buffer, dtype: "f32", shape, strides: contiguousStrides(shape), offset: 0 };
      if (isOutput) results.push({ wide, narrow: view });
      else tools.copy(view, wide);
      return wide;
    };
    try {
      kernel(...args.map((arg, i) => mapHalves(arg, (view) => widen(view, i === outputPlace)) as Argument));
      for (const { wide, narrow } of results) tools.copy(wide, narrow);
    } finally {
      for (const buffer of buffers) tools.free(buffer);
    }
  };
}

/** The same kernels, where those that compute in f32 alone also take half precision. */
export function withHalves(kernels: Kernels, tools: HalfTools): Kernels {
  const wrapped = Object.entries(outputPlaces).map(([name, place]) => {
    return [name, widening(kernels[name as keyof Kernels] as unknown as AnyKernel, place, tools)];
  });
  return { ...kernels, ...Object.fromEntries(wrapped) };
}
