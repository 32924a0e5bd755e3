// Layer: apps/bench. `bench check`: the conformance suite and the goldens on a backend, without a test runner, for machines
// that have only a program and a GPU.
// Knows the suite and how a device is opened. Knows no op, no kernel and no backend by name.
import { createRequire } from "node:module";
import path from "node:path";
import { parseArgs } from "node:util";
import { type GoldenFolder, goldenTests, isFloatType, openGoldens, runConformance } from "@diffmamba/conformance";
import { nodeFiles } from "@diffmamba/files/node";
import { type Device, type DType, dtypes } from "@diffmamba/tensor";
import { openDevices } from "./backends.js";
import { messageOf, UsageError } from "./errors.js";
import type { Output } from "./program.js";

export const checkUsage = `usage: bench check --backend NAME [options]

  --backend NAME     the backend to check
  --filter TEXT      only tests whose name holds TEXT
  --dtypes LIST      types to test, such as f32,bf16,f16: of the suite all that the backend has by default, of the goldens f32
  --goldens FOLDER   the golden files; those of the conformance package by default
  --verbose          a line for each test, not only for those that fail
  --help             this text
`;

interface CheckArguments {
  readonly backend: string;
  readonly filter: string;
  readonly dtypes: readonly DType[] | undefined;
  readonly goldens: string | undefined;
  readonly verbose: boolean;
}

/** @throws UsageError for a name that is no type */
function parseTypes(list: string): DType[] {
  return list.split(",").map((name) => {
    const found = dtypes.find((dtype) => dtype === name);
    if (found === undefined) throw new UsageError(`check: --dtypes ${name}: there is ${dtypes.join(", ")}.`);
    return found;
  });
}

/** @throws UsageError for an unknown flag, or without a backend; undefined where help is asked for */
function parseCheck(argv: readonly string[]): CheckArguments | undefined {
  let values: {
    backend?: string;
    filter?: string;
    dtypes?: string;
    goldens?: string;
    verbose?: boolean;
    help?: boolean;
  };
  try {
    const options = {
      backend: { type: "string" },
      filter: { type: "string" },
      dtypes: { type: "string" },
      goldens: { type: "string" },
      verbose: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    } as const;
    ({ values } = parseArgs({ args: [...argv], options }));
  } catch (error) {
    throw new UsageError(messageOf(error), { cause: error });
  }
  const { backend, filter = "", dtypes: list, goldens, verbose = false, help } = values;
  if (help) return undefined;
  if (backend === undefined) throw new UsageError("check: --backend NAME is missing.");
  return { backend, filter, dtypes: list === undefined ? undefined : parseTypes(list), goldens, verbose };
}

/** A test's outcome; `failure` is why it did not pass. */
interface Outcome {
  readonly name: string;
  readonly failure?: Error;
  /** Why it was not run. */
  readonly skipped?: string;
  readonly milliseconds: number;
}

async function* outcomes(
  device: Device,
  goldens: GoldenFolder,
  wanted: string,
  types: readonly DType[] | undefined,
): AsyncGenerator<Outcome> {
  const matches = (name: string) => name.toLowerCase().includes(wanted.toLowerCase());
  for await (const { suite, name, failure, skipped, milliseconds } of runConformance(device, {
    ...(types && { dtypes: types }),
    filter: (test) => matches(`${test.suite}: ${test.name}`),
  })) {
    yield { name: `${suite}: ${name}`, milliseconds, ...(failure && { failure }), ...(skipped && { skipped }) };
  }
  for (const test of goldenTests(goldens, types?.filter(isFloatType) ?? ["f32"])) {
    const name = `golden: ${test.name}`;
    if (!matches(name)) continue;
    const start = performance.now();
    const failure = await test.run(device).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
    );
    yield { name, milliseconds: performance.now() - start, ...(failure && { failure }) };
  }
}

function defaultGoldens(): string {
  const manifest = createRequire(import.meta.url).resolve("@diffmamba/conformance/package.json");
  return path.join(path.dirname(manifest), "fixtures", "goldens");
}

/** Runs `bench check ARGV`. @returns the exit code: 0, or 1 where a test failed @throws UsageError */
export async function check(argv: readonly string[], { stdout, stderr }: Output): Promise<number> {
  const given = parseCheck(argv);
  if (given === undefined) {
    stdout(checkUsage);
    return 0;
  }
  const goldens = await openGoldens(nodeFiles(), given.goldens ?? defaultGoldens());
  const [device] = await openDevices([given.backend]);
  stderr(`backend ${device.backend.name}: ${device.backend.device}\n`);
  let [passed, failed, left] = [0, 0, 0];
  try {
    for await (const { name, failure, skipped, milliseconds } of outcomes(
      device,
      goldens,
      given.filter,
      given.dtypes,
    )) {
      if (failure) failed++;
      else if (skipped) left++;
      else passed++;
      if (skipped) stdout(`skipped ${name}: ${skipped}\n`);
      else if (failure) stdout(`FAILED ${name}\n  ${failure.message.replaceAll("\n", "\n  ")}\n`);
      else if (given.verbose) stdout(`passed ${name} (${milliseconds.toFixed(0)} ms)\n`);
    }
  } finally {
    await device.dispose();
  }
  if (passed + failed + left === 0) throw new UsageError(`--filter ${given.filter}: no test has that in its name.`);
  stdout(`${passed} passed, ${failed} failed${left > 0 ? `, ${left} skipped` : ""}\n`);
  return failed > 0 ? 1 : 0;
}
