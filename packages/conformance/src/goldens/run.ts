// Layer: conformance. The registry of golden runners, and what running a folder means: a file or a folder that no runner
// knows fails. Knows the runners' interface. Knows no op, no module and no test runner.

import { joinPath } from "@diffmamba/files";
import { isJsonObject, readLooseJson } from "@diffmamba/models";
import { Build } from "@diffmamba/nn";
import { type Device, isHalf, reference } from "@diffmamba/tensor";
import { assertChecks, type Check, check, type FloatType } from "../compare.js";
import { Golden, GoldenError, type GoldenFolder, type GoldenRunner, type ModelFolderRunner } from "./golden.js";
import { mambaFolderRunner, modelRunner } from "./models.js";
import { checkModule, knowsModule, type ModuleMeta } from "./modules.js";
import { opRunners } from "./ops.js";

const moduleTensors = /^((param|grad)\..+|d?input|d?output|step_output|final_(conv|ssm)_state)$/;

const moduleRunner: GoldenRunner = {
  name: "module",
  matches: ({ module }) => knowsModule(module),
  run: async (device, dtype, golden) => {
    const unknown = [...golden.tensors.keys()].filter((name) => !moduleTensors.test(name));
    return [
      ...(await checkModule(
        new Build({ device, dtype }),
        golden.name,
        golden.meta as unknown as ModuleMeta,
        golden.tensors,
      )),
      ...unknown.map((name) => check(name, false, "the file has this tensor, and nothing here compares it")),
    ];
  },
};

/** Every kind of golden file; the first that matches a file's metadata runs it. */
export const goldenRunners: readonly GoldenRunner[] = [...opRunners, moduleRunner, modelRunner];

/** Every kind of model folder; the first that matches its `config.json` runs it. */
export const modelFolderRunners: readonly ModelFolderRunner[] = [mambaFolderRunner];

/** Runs the golden file `name` of a folder. @throws GoldenError where no runner knows it */
export async function runGolden(
  folder: GoldenFolder,
  name: string,
  device: Device,
  dtype: FloatType,
  runners: readonly GoldenRunner[] = goldenRunners,
): Promise<readonly Check[]> {
  const golden = await Golden.read(folder, name);
  const runner = runners.find((one) => one.matches(golden.meta));
  if (runner !== undefined) return runner.run(device, dtype, golden, folder);
  const { op, module, model } = golden.meta;
  const kind = JSON.stringify({ op, module, model });
  throw new GoldenError(golden.path, `nothing here knows what it holds: its metadata names ${kind}.`);
}

/** Runs the model folder `name` of a folder. @throws GoldenError where no runner knows it */
export async function runModelFolder(
  folder: GoldenFolder,
  name: string,
  device: Device,
  dtype: FloatType,
  runners: readonly ModelFolderRunner[] = modelFolderRunners,
): Promise<readonly Check[]> {
  const path = joinPath(folder.path, name);
  const file = joinPath(path, "config.json");
  if ((await folder.files.stat(file)) === undefined) {
    throw new GoldenError(path, "it is a folder without a config.json; nothing here knows what it holds.");
  }
  const config = await readLooseJson(folder.files, file);
  const runner = isJsonObject(config) ? runners.find((one) => one.matches(config)) : undefined;
  if (runner !== undefined) return runner.run(device, dtype, name, folder);
  const kind = isJsonObject(config) ? JSON.stringify(config.model_type) : "no object";
  throw new GoldenError(path, `nothing here knows this model; its config.json has the model_type ${kind}.`);
}

/** One golden as a test: `run` throws where something differs. */
export interface GoldenTest {
  /** The file or folder, and the type. */
  readonly name: string;
  readonly run: (device: Device) => Promise<void>;
}

/** How much further from a golden than the reference a backend may be, where both round to 16 bits; and how far the reference at most. */
const asTheReference = 2;
const mostOfReference = 0.25;

/** Half of the distance between neighbours near 1. */
const roundings = { bf16: 2 ** -9, f16: 2 ** -12 } as const;

/**
 * Where values that are rounded to 16 bits cancel, no order of sums brings a gradient within the tolerance: the reference, which rounds
 * at the same places, shows how far from the golden that leaves anyone. It is asked twice, in both types of 16 bits, each error counted
 * in roundings of `dtype`: a single draw may be near the golden by chance. A check that fails passes all the same where it is at most
 * twice as far as the larger of the two: another draw of the same rounding. A draw that is further off than a quarter says nothing.
 */
async function besideReference(
  checks: readonly Check[],
  dtype: keyof typeof roundings,
  run: (device: Device, dtype: FloatType) => Promise<readonly Check[]>,
): Promise<readonly Check[]> {
  if (checks.every(({ passed }) => passed)) return checks;
  const device = reference();
  try {
    const errors = new Map<string, number>();
    for (const drawn of ["bf16", "f16"] as const) {
      const scale = roundings[dtype] / roundings[drawn];
      for (const { name, error } of await run(device, drawn)) {
        const scaled = error * scale;
        if (scaled < mostOfReference) errors.set(name, Math.max(errors.get(name) ?? 0, scaled));
      }
    }
    return checks.map((check) => {
      const near = check.error <= asTheReference * (errors.get(check.name) ?? 0);
      return check.passed || !near ? check : { ...check, passed: true };
    });
  } finally {
    await device.dispose();
  }
}

/**
 * The tests of a folder of goldens, in the types given: one for each file and type, for each model folder and type, and
 * one that fails for each entry that is neither. In types of 16 bits they are for backends other than the reference, which is the
 * measure there.
 */
export function goldenTests(folder: GoldenFolder, dtypes: readonly FloatType[]): GoldenTest[] {
  const test = (name: string, dtype: FloatType, run: typeof runGolden | typeof runModelFolder): GoldenTest => ({
    name: `${name}, ${dtype}`,
    run: async (device) => {
      const on = (device: Device, dtype: FloatType) => run(folder, name, device, dtype);
      const checks = await on(device, dtype);
      assertChecks(`${name}, ${dtype}`, isHalf(dtype) ? await besideReference(checks, dtype, on) : checks);
    },
  });
  return [
    ...folder.tensors.flatMap((name) => dtypes.map((dtype) => test(name, dtype, runGolden))),
    ...folder.models.flatMap((name) => dtypes.map((dtype) => test(name, dtype, runModelFolder))),
    ...folder.unknown.map((name) => ({
      name,
      run: () => Promise.reject(new GoldenError(joinPath(folder.path, name), "nothing here knows what this file is.")),
    })),
  ];
}
