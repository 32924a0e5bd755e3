// How golden folders and files fail: by name, never in silence. (That ours pass is the other test, goldens.test.ts.)
import { fileURLToPath } from "node:url";
import { type FileSystem, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { nodeFiles } from "@diffmamba/files/node";
import { type JsonObject, serializeSafetensors } from "@diffmamba/models";
import { type HostTensor, reference } from "@diffmamba/tensor";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { assertChecks, check } from "./compare.js";
import { Golden, type GoldenRunner, openGoldens } from "./goldens/golden.js";
import { goldenTests, runGolden, runModelFolder } from "./goldens/run.js";

const fixtures = await openGoldens(nodeFiles(), fileURLToPath(new URL("../fixtures/goldens", import.meta.url)));

const device = reference({ poison: true });
afterAll(() => device.dispose());

let files: FileSystem;
beforeEach(async () => {
  files = memoryFiles();
  await files.makeDirectory("goldens");
});

interface Edit {
  readonly meta?: (meta: JsonObject) => unknown;
  readonly tensors?: (tensors: Map<string, HostTensor>) => void;
}

/** Writes a committed golden, edited, to goldens/it.safetensors, and runs it in f32. */
async function runEdited(name: string, { meta = (same) => same, tensors: edit }: Edit = {}): Promise<void> {
  const golden = await Golden.read(fixtures, `${name}.safetensors`);
  const tensors = new Map(golden.tensors);
  edit?.(tensors);
  const bytes = serializeSafetensors(tensors, { meta: JSON.stringify(meta(golden.meta)) });
  await writeFileAtomic(files, "goldens/it.safetensors", bytes);
  assertChecks(name, await runGolden(await openGoldens(files, "goldens"), "it.safetensors", device, "f32"));
}

/** An edit that multiplies one tensor by 1.01. */
function scaled(name: string): Edit {
  return {
    tensors: (tensors) => {
      const { dtype, shape, data } = tensors.get(name) as HostTensor;
      tensors.set(name, { dtype, shape, data: Float32Array.from(data, (x) => 1.01 * x) });
    },
  };
}

describe("a folder of goldens", () => {
  it("must be there, be a folder, and hold a .safetensors file", async () => {
    await expect(openGoldens(files, "gone")).rejects.toThrow("gone: there is no such folder of goldens.");
    await writeFileAtomic(files, "file", "text");
    await expect(openGoldens(files, "file")).rejects.toThrow("file: it is a file; a folder of goldens was expected.");
    await writeFileAtomic(files, "goldens/README.md", "text");
    await expect(openGoldens(files, "goldens")).rejects.toThrow("goldens: the folder holds no .safetensors file.");
  });

  it("has a test for every file and folder, in each type, and one that fails for what it does not know", async () => {
    for (const name of ["a.safetensors", "notes.txt", "README.md", "index.json", ".hidden"]) {
      await writeFileAtomic(files, `goldens/${name}`, "text");
    }
    await files.makeDirectory("goldens/model");
    const tests = goldenTests(await openGoldens(files, "goldens"), ["f64", "f32"]);
    expect(tests.map(({ name }) => name)).toEqual([
      "a.safetensors, f64",
      "a.safetensors, f32",
      "model, f64",
      "model, f32",
      "notes.txt",
    ]);
    await expect(tests[0].run(device)).rejects.toThrow("goldens/a.safetensors");
    await expect(tests[2].run(device)).rejects.toThrow("goldens/model: it is a folder without a config.json");
    await expect(tests[4].run(device)).rejects.toThrow("goldens/notes.txt: nothing here knows what this file is.");
  });
});

describe("a golden file", () => {
  it("passes as it is", async () => {
    for (const name of ["rms_norm_4", "ssd_3", "selective_scan_6", "causal_conv1d_3", "adamw", "mamba2_block_1"]) {
      await runEdited(name);
    }
  });

  it.each([
    ["rms_norm_2", ["out", "dx", "dz", "dweight"]],
    ["causal_conv1d_1", ["out", "dx", "dweight", "dbias"]],
    ["selective_scan_6", ["out", "last_state", "du", "ddelta", "dA", "dB", "dC", "dD", "dz", "ddelta_bias"]],
    ["ssd_3", ["out", "final_state", "dx", "ddt", "dA", "dB", "dC", "dD", "dz", "ddt_bias"]],
    ["adamw", ["p0_1", "p1_1", "p0_10", "p1_10"]],
    ["mamba1_block_0", ["output", "dinput", "grad.A_log", "step_output", "final_conv_state", "final_ssm_state"]],
  ])("%s fails where any one of its values is off", async (name, values) => {
    for (const value of values) await expect(runEdited(name, scaled(value)), value).rejects.toThrow("failed");
  });

  it.each([
    ["rms_norm_2", { eps: 0.1 }],
    ["rms_norm_2", { norm_before_gate: true }],
    ["rms_norm_4", { group_size: 64 }],
    ["causal_conv1d_1", { activation: null }],
    ["selective_scan_6", { delta_softplus: false }],
    ["ssd_3", { dt_softplus: false }],
    ["ssd_4", { dt_limit: null }],
    ["ssd_4", { dt_limit: [0.01, 0.4] }],
    ["adamw", { lr: 0.004 }],
    ["adamw", { betas: [0.9, 0.99] }],
    ["adamw", { weight_decay: [0, 0] }],
    ["diffmamba2block_1", { lambda_init: 0.5 }],
  ])("%s fails with %o: the metadata is what counts", async (name, change) => {
    await expect(runEdited(name, { meta: (meta) => ({ ...meta, ...change }) })).rejects.toThrow("failed");
  });

  it.each([
    ["rms_norm_2", { eps: null }, 'its "eps" is null; expected a number.'],
    ["rms_norm_2", { gated: false }, 'its "gated" is false, but it has a z.'],
    ["rms_norm_2", { group_size: "all" }, 'its "group_size" is "all"; expected a number or null.'],
    ["causal_conv1d_1", { activation: "gelu" }, 'its "activation" is "gelu"; expected "silu" or null.'],
    ["causal_conv1d_1", { layout: "x:(B,L,D)" }, 'its "layout" is "x:(B,L,D)"; expected "x,out:(B,D,L)'],
    ["selective_scan_6", { delta_softplus: 1 }, 'its "delta_softplus" is 1; expected true or false.'],
    ["ssd_4", { dt_limit: [0] }, 'its "dt_limit" is [0]; expected two numbers or null.'],
    ["adamw", { betas: [0.9] }, 'its "betas" are not two numbers.'],
    ["adamw", { steps: 11 }, 'it has no tensor "g0_11".'],
  ])("%s with %o is refused by name", async (name, change, message) => {
    const edited = runEdited(name, { meta: (meta) => ({ ...meta, ...change }) });
    await expect(edited).rejects.toThrow(`goldens/it.safetensors: ${message}`);
  });

  it("takes a bare Infinity in its metadata", async () => {
    const golden = await Golden.read(fixtures, "ssd_3.safetensors");
    const meta = JSON.stringify({ ...golden.meta, dt_limit: [0, 7] }).replace("7]", "Infinity]");
    await writeFileAtomic(files, "goldens/it.safetensors", serializeSafetensors(golden.tensors, { meta }));
    assertChecks("ssd_3", await runGolden(await openGoldens(files, "goldens"), "it.safetensors", device, "f32"));
  });

  it("fails for a tensor that nothing compares, and for one that is missing", async () => {
    const extra = { dtype: "f32", shape: [1], data: new Float32Array(1) } as const;
    for (const name of ["rms_norm_2", "adamw", "mamba1_block_0"]) {
      await expect(runEdited(name, { tensors: (tensors) => void tensors.set("rstd", extra) }), name).rejects.toThrow(
        "rstd: the file has this tensor, and nothing here compares it",
      );
    }
    await expect(runEdited("rms_norm_2", { tensors: (tensors) => void tensors.delete("dz") })).rejects.toThrow(
      'goldens/it.safetensors: it has no tensor "dz".',
    );
  });

  it("fails where no runner knows its metadata", async () => {
    await expect(runEdited("rms_norm_2", { meta: () => ({ op: "softcap" }) })).rejects.toThrow(
      'goldens/it.safetensors: nothing here knows what it holds: its metadata names {"op":"softcap"}.',
    );
    await expect(runEdited("rms_norm_2", { meta: () => ({}) })).rejects.toThrow("its metadata names {}.");
    await expect(runEdited("rms_norm_2", { meta: () => [1] })).rejects.toThrow("an object was expected");
  });

  it("fails where it is cut short, is nothing of the kind, or says nothing of what it holds", async () => {
    const run = async (bytes: Uint8Array | string) => {
      await writeFileAtomic(files, "goldens/it.safetensors", bytes);
      await runGolden(await openGoldens(files, "goldens"), "it.safetensors", device, "f32");
    };
    const bytes = await fixtures.files.read(`${fixtures.path}/rms_norm_0.safetensors`);
    await expect(run(bytes.subarray(0, bytes.length - 4))).rejects.toThrow("goldens/it.safetensors: ");
    await expect(run("{}")).rejects.toThrow("goldens/it.safetensors: ");
    await expect(run(serializeSafetensors([]))).rejects.toThrow(
      'goldens/it.safetensors: its __metadata__ has no "meta"',
    );
    await expect(run(serializeSafetensors([], { meta: "{" }))).rejects.toThrow("goldens/it.safetensors (meta)");
  });

  it("goes to the first runner that matches", async () => {
    const runner = (name: string): GoldenRunner => ({
      name,
      matches: ({ op }) => op === "mine",
      run: async () => [check(name, true, "")],
    });
    await writeFileAtomic(files, "goldens/it.safetensors", serializeSafetensors([], { meta: '{"op": "mine"}' }));
    const folder = await openGoldens(files, "goldens");
    const checks = await runGolden(folder, "it.safetensors", device, "f32", [runner("first"), runner("second")]);
    expect(checks.map(({ name }) => name)).toEqual(["first"]);
  });
});

describe("a model folder", () => {
  const folderWith = async (config: string) => {
    await files.makeDirectory("goldens/model");
    await writeFileAtomic(files, "goldens/a.safetensors", serializeSafetensors([]));
    await writeFileAtomic(files, "goldens/model/config.json", config);
    return openGoldens(files, "goldens");
  };

  it("goes to the runner that matches its config.json, bare Infinity included", async () => {
    const folder = await folderWith('{"model_type": "mine", "time_step_limit": [0.0, Infinity]}');
    const runner = {
      name: "mine",
      matches: (config: JsonObject) => config.model_type === "mine",
      run: async (_: unknown, __: unknown, name: string) => [check(name, true, "")],
    };
    expect((await runModelFolder(folder, "model", device, "f32", [runner])).map(({ name }) => name)).toEqual(["model"]);
  });

  it("fails where no runner knows it", async () => {
    const unknown = await folderWith('{"model_type": "transformer"}');
    await expect(runModelFolder(unknown, "model", device, "f32")).rejects.toThrow(
      'goldens/model: nothing here knows this model; its config.json has the model_type "transformer".',
    );
    await expect(runModelFolder(await folderWith("[]"), "model", device, "f32")).rejects.toThrow("no object");
    await expect(runModelFolder(await folderWith("{"), "model", device, "f32")).rejects.toThrow(
      "goldens/model/config.json",
    );
  });
});
