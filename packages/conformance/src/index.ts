// Layer: conformance. The public entry: the suite that every backend must pass, and the golden files.
// Plain functions over a device: they run in a test runner, in a browser page or on a bare machine.

export { type OpCase, opCase, titleOf } from "./cases/case.js";
export { gaps, opCases } from "./cases/index.js";
export * from "./compare.js";
export {
  Golden,
  GoldenError,
  type GoldenFolder,
  type GoldenRunner,
  type ModelFolderRunner,
  openGoldens,
} from "./goldens/golden.js";
export {
  type GoldenTest,
  goldenRunners,
  goldenTests,
  modelFolderRunners,
  runGolden,
  runModelFolder,
} from "./goldens/run.js";
export { checkGradients, gradientGaps, hasDifferences } from "./gradients.js";
export { properties } from "./properties/index.js";
export type { Property } from "./properties/property.js";
export {
  type ConformanceOptions,
  type ConformanceTest,
  conformanceTests,
  describeConformance,
  runConformance,
  type SuiteName,
  type TestResult,
  type TestRunner,
} from "./suite.js";
