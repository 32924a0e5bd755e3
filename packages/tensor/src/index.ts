// @diffmamba/tensor: tensors, ops, gradients, memory, and the reference backend.
// The one public entry; what is not named here is internal.

export * from "./backend.js";
export {
  currentDevice,
  Device,
  type DeviceOptions,
  type Nested,
  type Recorded,
  setCurrentDevice,
  tensor,
} from "./device.js";
export {
  bytesPerElement,
  type DType,
  dtypes,
  type HostTensor,
  isFloat,
  isHalf,
  type TypedArray,
  typedArray,
} from "./dtype.js";
export * from "./errors.js";
export { type GradOptions, grad, valueAndGrad } from "./grad.js";
export * from "./half.js";
export { broadcastShapes, contiguousStrides, isContiguous, type Layout, rowPitch, sizeOf } from "./layout.js";
export type { Leak } from "./leaks.js";
export type { OpSpec } from "./op.js";
export { type AdamWTensors, adamw, globalNorm } from "./ops/adamw.js";
export { addRmsNorm } from "./ops/addRmsNorm.js";
export { type CausalConv1dOptions, causalConv1d } from "./ops/causalConv1d.js";
export { opSpecs } from "./ops/index.js";
export { scatterAdd } from "./ops/indexing.js";
export { type LinearCrossEntropyOptions, linearCrossEntropy } from "./ops/linearCrossEntropy.js";
export { linear, linearInto } from "./ops/matmul.js";
export { layerNorm, type RmsNormOptions as RmsNormCallOptions, rmsNorm } from "./ops/norms.js";
export { dropout, type RandomSource, randomBits, randomMask } from "./ops/random.js";
export { type SampleOptions as SampleCallOptions, sample } from "./ops/sample.js";
export {
  type SelectiveScanInputs as SelectiveScanTensors,
  type SelectiveScanOptions as SelectiveScanCallOptions,
  selectiveScan,
} from "./ops/selectiveScan.js";
export type { SequenceOptions } from "./ops/sequence.js";
export {
  type CrossEntropyOptions,
  IGNORE_INDEX,
  logSumExp,
  softmax,
  softmaxCrossEntropy,
} from "./ops/softmaxCrossEntropy.js";
export { type KeptTokens, keptTokens, ssdDeferred, ssdSettle } from "./ops/ssdDeferred.js";
export { type SsdInputs as SsdTensors, type SsdOptions as SsdCallOptions, ssdScan } from "./ops/ssdScan.js";
export { concat } from "./ops/views.js";
export { recompute } from "./recompute.js";
export { CallRecorder } from "./recording.js";
export { ReferenceBackend, type ReferenceOptions } from "./reference/backend.js";
export { reference } from "./reference/index.js";
export * from "./routineKernels.js";
export { keep, scope } from "./scope.js";
export { shapesOnly } from "./shapesOnly.js";
export type { MemoryUse } from "./storage.js";
export { isRecording, noGrad } from "./tape.js";
export { type Operand, Tensor } from "./tensor.js";
export * from "./view.js";
