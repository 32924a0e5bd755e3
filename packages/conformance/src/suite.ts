// Layer: conformance. The suite as plain functions: every case and property in every type that a device has, one after
// another. Knows the lists of cases and properties. Knows no test runner, no Node and no backend by name.

import { type Device, type DType, opSpecs, reference } from "@diffmamba/tensor";
import { runCase, titleOf, typesFor } from "./cases/case.js";
import { gaps, opCases } from "./cases/index.js";
import { assertChecks, type Check, check } from "./compare.js";
import { checkGradients, gradientGaps, hasDifferences } from "./gradients.js";
import { properties } from "./properties/index.js";

/**
 * "coverage": no op is without cases; "ops": outputs and gradients agree with the reference in f64; "properties": what
 * holds whatever the numbers; "gradients": central differences, where the device has f64.
 */
export type SuiteName = "coverage" | "ops" | "properties" | "gradients";

/** One test of the suite. */
export interface ConformanceTest {
  readonly suite: SuiteName;
  /** The case or property, and the type. */
  readonly name: string;
  /** The op that is tested, where it is one alone. */
  readonly op?: string;
  /** Why the device cannot be asked: such a test is shown, and not run. */
  readonly skipped?: string;
  /** All comparisons. Throws where the op itself does. */
  readonly checks: () => Promise<readonly Check[]>;
}

export interface ConformanceOptions {
  /** The reference to compare with; one of its own by default. */
  readonly oracle?: Device;
  /** Types to test, of those that the device has; all by default. */
  readonly dtypes?: readonly DType[];
  /** Which tests to run; all by default. */
  readonly filter?: (test: ConformanceTest) => boolean;
}

function coverageTests(): ConformanceTest[] {
  const none = (name: string, found: readonly string[]): ConformanceTest => ({
    suite: "coverage",
    name,
    checks: async () => [check("none is missing", found.length === 0, found.join("; "))],
  });
  return [
    none("every op has a case in each of its types", gaps(opSpecs)),
    none("every gradient is compared with differences", gradientGaps(opSpecs, opCases)),
  ];
}

/** All tests of a device, compared with `oracle`, the reference. Nothing runs before `checks` is called. */
export function conformanceTests(
  device: Device,
  oracle: Device,
  { dtypes, filter = () => true }: Omit<ConformanceOptions, "oracle"> = {},
): ConformanceTest[] {
  const { dtypes: own } = device.backend;
  const available = new Set(dtypes?.filter((type) => own.has(type)) ?? own);
  const ops = opCases.flatMap((test) =>
    typesFor(test, available).map((dtype): ConformanceTest => {
      const name = `${titleOf(test)}, ${dtype}`;
      return { suite: "ops", name, op: test.op, checks: () => runCase(test, device, dtype, oracle) };
    }),
  );
  const held = properties.flatMap((property) =>
    property.dtypes
      .filter((dtype) => available.has(dtype))
      .map((dtype): ConformanceTest => {
        const { kernel } = property;
        const lacks = kernel !== undefined && device.backend.kernels[kernel] === undefined;
        return {
          suite: "properties",
          name: `${property.name}, ${dtype}`,
          ...(lacks && { skipped: `the backend ${device.backend.name} has no kernel ${kernel}` }),
          checks: () => property.run(device, dtype),
        };
      }),
  );
  const gradients = (available.has("f64") ? opCases.filter(hasDifferences) : []).map((test): ConformanceTest => {
    return { suite: "gradients", name: titleOf(test), op: test.op, checks: () => checkGradients(test, device) };
  });
  return [...coverageTests(), ...ops, ...held, ...gradients].filter(filter);
}

/** What came of one test. */
export interface TestResult {
  readonly suite: SuiteName;
  readonly name: string;
  /** Whether it was run, and all its comparisons hold. */
  readonly passed: boolean;
  /** Why it was not run; there is then no failure either. */
  readonly skipped?: string;
  readonly checks: readonly Check[];
  /** Why it did not pass. */
  readonly failure?: Error;
  readonly milliseconds: number;
}

async function runTest({ suite, name, skipped, checks: run }: ConformanceTest): Promise<TestResult> {
  if (skipped !== undefined) return { suite, name, passed: false, skipped, checks: [], milliseconds: 0 };
  const start = performance.now();
  let checks: readonly Check[] = [];
  let failure: Error | undefined;
  try {
    checks = await run();
    assertChecks(name, checks);
  } catch (error) {
    failure = error instanceof Error ? error : new Error(String(error));
  }
  const milliseconds = performance.now() - start;
  return { suite, name, passed: failure === undefined, checks, ...(failure && { failure }), milliseconds };
}

/**
 * Runs the suite on a device, and gives each test's outcome as it is known. It never throws for a test that fails.
 * @example for await (const { name, failure } of runConformance(device)) if (failure) failed.push(name);
 */
export async function* runConformance(
  device: Device,
  options: ConformanceOptions = {},
): AsyncGenerator<TestResult, void, void> {
  const oracle = options.oracle ?? reference();
  try {
    for (const test of conformanceTests(device, oracle, options)) yield await runTest(test);
  } finally {
    if (options.oracle === undefined) await oracle.dispose();
  }
}

/** What the suite needs of a test runner: vitest's functions, or others of that form. */
export interface TestRunner {
  readonly describe: (name: string, define: () => void) => void;
  readonly it: ((name: string, run: () => Promise<void>) => void) & {
    readonly skip: (name: string, run: () => Promise<void>) => void;
  };
  readonly afterAll: (run: () => Promise<void>) => void;
}

/**
 * Defines one test of a test runner for each test of the suite, under `title`. The device is disposed of at the end.
 * @example describeConformance({ describe, it, afterAll }, "cpu", await cpu());
 */
export function describeConformance(
  { describe, it, afterAll }: TestRunner,
  title: string,
  device: Device,
  options: ConformanceOptions = {},
): void {
  const oracle = options.oracle ?? reference();
  const tests = conformanceTests(device, oracle, options);
  describe(title, () => {
    afterAll(async () => {
      await device.dispose();
      if (options.oracle === undefined) await oracle.dispose();
    });
    for (const suite of new Set(tests.map((test) => test.suite))) {
      describe(suite, () => {
        for (const test of tests) {
          if (test.suite !== suite) continue;
          const run = async () => assertChecks(test.name, await test.checks());
          if (test.skipped === undefined) it(test.name, run);
          else it.skip(`${test.name}: ${test.skipped}`, run);
        }
      });
    }
  });
}
