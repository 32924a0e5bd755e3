// Model folders: what is saved is loaded again to the bit; what is missing, unknown or of another shape is named.

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type FileSystem, joinPath } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { nodeFiles } from "@diffmamba/files/node";
import { convertArray } from "@diffmamba/nn";
import { type Device, type DType, type HostTensor, reference } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ModelConfig, modelConfig } from "../config.js";
import { dict, tensor, torchFile } from "../formats/__fixtures__/build.js";
import {
  FormatError,
  type JsonObject,
  parseLooseJson,
  SafetensorsFile,
  serializeSafetensors,
} from "../formats/index.js";
import { MambaLM } from "../model.js";
import { tinyModel, tinyModels } from "../tiny.testing.js";
import { describeModel } from "./folder.js";

const goldens = fileURLToPath(new URL("../../../conformance/fixtures/goldens", import.meta.url));

let device: Device;
let files: FileSystem;
beforeEach(() => {
  device = reference({ poison: true });
  files = memoryFiles();
});
afterEach(() => device.dispose());

type Tensors = Map<string, HostTensor>;

async function put(name: string, content: Uint8Array | string): Promise<void> {
  await files.makeDirectory("m");
  await files.remove(joinPath("m", name));
  await files.createExclusive(
    joinPath("m", name),
    typeof content === "string" ? new TextEncoder().encode(content) : content,
  );
}

const putTensors = (tensors: Tensors) => put("model.safetensors", serializeSafetensors(tensors, { format: "pt" }));

/** A state dict as torch.save writes it; equal arrays share a storage. */
function torchBin(tensors: Tensors): Uint8Array {
  const keys = new Map<HostTensor["data"], string>();
  for (const { data } of tensors.values()) if (!keys.has(data)) keys.set(data, String(keys.size));
  const storages = [...keys].map(([data, key]) => {
    return [key, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)] as const;
  });
  const pickled = [...tensors].map(([name, { shape, data }]) => {
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
    return [name, tensor({ key: keys.get(data) ?? "", length: data.length, shape, strides })] as const;
  });
  return torchFile(dict(Object.fromEntries(pickled)), Object.fromEntries(storages));
}

const load = (dtype: DType = "f32") => MambaLM.load(files, "m", { device, dtype });

/** Saves a new model of a configuration to the folder "m". @returns its tensors */
async function saved(config: Partial<ModelConfig>): Promise<Tensors> {
  using model = MambaLM.create(config, { device, seed: 7 });
  await model.save(files, "m");
  return await model.stateDict();
}

const configText = async () => new TextDecoder().decode(await files.read("m/config.json"));

describe("saving and loading", () => {
  it.each(tinyModels)("%s loses nothing", async (_, config) => {
    using model = MambaLM.create(config, { device, seed: 7 });
    await model.save(files, "m");
    expect((await files.list("m")).map(({ name }) => name)).toEqual(["config.json", "model.safetensors"]);
    device.resetPeak();
    const { bytes } = device.memory();
    using loaded = await load();
    expect(loaded.config).toEqual(config);
    expect(await loaded.stateDict()).toEqual(await model.stateDict());
    // No second copy on the device, and every parameter is covered: a poisoned device would show the rest.
    expect(device.memory().peakBytes).toBeLessThanOrEqual(2 * bytes);
    for (const parameter of loaded.parameters()) expect((await parameter.data()).every(Number.isFinite)).toBe(true);
    using tokens = model.tokens([1, 2, 3]);
    using a = model.eval().forward(tokens);
    using b = loaded.eval().forward(tokens);
    expect(await b.data()).toEqual(await a.data());
  });

  it.each([
    ["f64", "float64"],
    ["bf16", "bfloat16"],
    ["f16", "float16"],
  ] as const)("in %s loses nothing either", async (dtype, name) => {
    using model = MambaLM.create(tinyModel("diffmamba2"), { device, dtype });
    await model.save(files, "m");
    expect(JSON.parse((await configText()).replace("Infinity", "null")).torch_dtype).toBe(name);
    using loaded = await load(dtype);
    expect(await loaded.stateDict()).toEqual(await model.stateDict());
  });

  it("in shards loses nothing, and leaves no single file behind", async () => {
    using model = MambaLM.create(tinyModel("diffmamba2"), { device });
    await model.save(files, "m");
    await model.save(files, "m", { maxShardBytes: 1500 });
    const names = (await files.list("m")).map(({ name }) => name);
    expect(names).toContain("model.safetensors.index.json");
    expect(names.filter((name) => /^model-0000\d-of-0000\d\.safetensors$/.test(name)).length).toBeGreaterThan(2);
    expect(names).not.toContain("model.safetensors");
    using loaded = await load();
    expect(await loaded.stateDict()).toEqual(await model.stateDict());
  });

  it.each<DType>(["f16", "bf16", "f64"])("converts stored %s", async (dtype) => {
    const tensors = await saved(tinyModel("diffmamba2, alternate"));
    const stored: Tensors = new Map();
    const wanted: Tensors = new Map();
    for (const [name, { shape, data }] of tensors) {
      const converted = convertArray(data, "f32", dtype);
      stored.set(name, { dtype, shape, data: converted });
      wanted.set(name, { dtype: "f32", shape, data: convertArray(converted, dtype, "f32") });
    }
    await putTensors(stored);
    using loaded = await load();
    expect(await loaded.stateDict()).toEqual(wanted);
  });

  it("draws dropout as the model that was saved", async () => {
    const config = { ...tinyModel("post-norm"), dropout: 0.5 };
    using model = MambaLM.create(config, { device, seed: 7 });
    await model.save(files, "m");
    using loaded = await MambaLM.load(files, "m", { device, seed: 7 });
    using tokens = model.tokens([1, 2, 3]);
    const losses = [model, loaded].map((one) => one.loss(tokens, tokens));
    expect(await losses[1].data()).toEqual(await losses[0].data());
    for (const loss of losses) loss.dispose();
  });

  it("keeps the special tokens of config.json", async () => {
    await saved(tinyModel("mamba2"));
    expect(await describeModel(files, "m")).toMatchObject({ tokenIds: { bos: null, eos: null, pad: null } });
    const json = parseLooseJson(await configText(), "config.json") as JsonObject;
    await put("config.json", JSON.stringify({ ...json, time_step_limit: null, eos_token_id: [3, 4], pad_token_id: 0 }));
    using loaded = await load();
    expect(loaded.tokenIds).toEqual({ bos: null, eos: [3, 4], pad: 0 });
    await loaded.save(files, "n");
    expect((await describeModel(files, "n")).tokenIds).toEqual(loaded.tokenIds);
  });
});

describe("the library's folders", () => {
  it.each(["hf_mamba_tiny", "hf_mamba2_tiny", "hf_diffmamba2_tiny"])("%s is written back the same", async (name) => {
    const folder = path.join(goldens, name);
    using model = await MambaLM.load(nodeFiles(), folder, { device });
    await model.save(files, "m");
    const [before, after] = [
      await SafetensorsFile.open(nodeFiles(), path.join(folder, "model.safetensors")),
      await SafetensorsFile.open(files, "m/model.safetensors"),
    ];
    expect([...after.names].sort()).toEqual([...before.names].sort());
    for (const tensor of before.names) expect(await after.read(tensor)).toEqual(await before.read(tensor));
    const theirs = parseLooseJson(readFileSync(path.join(folder, "config.json"), "utf8"), name) as JsonObject;
    const ours = parseLooseJson(await configText(), "config.json") as JsonObject;
    const shared = Object.keys(ours).filter((key) => key in theirs);
    expect(shared.length).toBeGreaterThan(20);
    for (const key of shared) expect(ours[key], key).toEqual(theirs[key]);
    expect(readdirSync(folder)).toContain("pytorch_model.bin");
  });
});

describe("a tied head", () => {
  const config = tinyModel("mamba2");

  it("is not stored", async () => {
    const tensors = await saved(config);
    expect([...tensors.keys()]).not.toContain("lm_head.weight");
  });

  it("may be in a .bin, where it is the embedding", async () => {
    const tensors = await saved(config);
    const embedding = tensors.get("backbone.embeddings.weight") as HostTensor;
    await files.remove("m/model.safetensors");
    await put("pytorch_model.bin", torchBin(new Map([...tensors, ["lm_head.weight", embedding]])));
    using loaded = await load();
    expect(await loaded.stateDict()).toEqual(tensors);
  });

  it("is refused where it is another tensor", async () => {
    const tensors = await saved(config);
    const embedding = tensors.get("backbone.embeddings.weight") as HostTensor;
    const data = Float32Array.from(embedding.data);
    data[5] += 1;
    await putTensors(new Map([...tensors, ["lm_head.weight", { ...embedding, data }]]));
    await expect(load()).rejects.toThrow(/model\.safetensors: "lm_head\.weight" is not the embedding, though/);
    expect(device.memory().tensors).toBe(0);
  });
});

describe("the original form", () => {
  const ssm: Readonly<Record<string, JsonObject>> = {
    mamba: { d_state: 4 },
    mamba2: { layer: "Mamba2", d_state: 4, headdim: 4, chunk_size: 4 },
  };
  const original: JsonObject = { d_model: 8, n_layer: 2, vocab_size: 11, pad_vocab_size_multiple: 4 };

  it.each(
    ["mamba", "mamba2"].flatMap((kind) => [
      [kind, "safetensors"],
      [kind, "bin"],
    ]),
  )("of %s is read from .%s, with its own name of the embedding and a tied head", async (kind, form) => {
    const tensors = await saved({ ...tinyModel(kind), vocabSize: 12 });
    await files.remove("m");
    const theirs: Tensors = new Map();
    for (const [name, value] of tensors) theirs.set(name.replace("embeddings", "embedding"), value);
    theirs.set("lm_head.weight", tensors.get("backbone.embeddings.weight") as HostTensor);
    await put("config.json", JSON.stringify({ ...original, ssm_cfg: ssm[kind], rms_norm: true }));
    if (form === "bin") await put("pytorch_model.bin", torchBin(theirs));
    else await putTensors(theirs);
    using loaded = await load();
    expect(await loaded.stateDict()).toEqual(tensors);
    expect(loaded.config).toMatchObject({ vocabSize: 12, tieEmbeddings: true });
    await loaded.save(files, "n");
    using again = await MambaLM.load(files, "n", { device });
    expect(await again.stateDict()).toEqual(tensors);
    expect(again.config).toEqual(loaded.config);
  });

  it("with layer norms is read", async () => {
    const tensors = await saved({ ...tinyModel("mamba2, untied, layer norm"), vocabSize: 12 });
    await put(
      "config.json",
      JSON.stringify({ ...original, ssm_cfg: ssm.mamba2, rms_norm: false, tie_embeddings: false }),
    );
    using loaded = await load();
    expect(await loaded.stateDict()).toEqual(tensors);
  });
});

describe("a folder that is wrong", () => {
  const config = modelConfig({ ...tinyModel("diffmamba2, alternate"), tieEmbeddings: false });
  const inProj = "backbone.layers.0.mixer_2.in_proj.weight";

  const changed = async (change: (tensors: Tensors) => void): Promise<void> => {
    const tensors = await saved(config);
    change(tensors);
    await putTensors(tensors);
  };

  it.each<[string, () => Promise<void>, RegExp]>([
    ["is not there", async () => undefined, /^m: no such folder/],
    ["is a file", async () => void (await files.createExclusive("m", new Uint8Array(3))), /^m: no folder, but a file/],
    ["is empty", async () => files.makeDirectory("m"), /^m: no model: it has no config\.json/],
    ["has a config.json that is no JSON", () => put("config.json", "{"), /^m\/config\.json: line 1/],
    [
      "has no weights",
      () => put("config.json", JSON.stringify({ model_type: "diffmamba", diffmamba_config: {} })),
      /^m: no weights/,
    ],
    [
      "lacks a tensor",
      () => changed((tensors) => tensors.delete(inProj)),
      /^m\/model\.safetensors: lacks "backbone\.layers\.0\.mixer_2\.in_proj\.weight", which the model has/,
    ],
    [
      "lacks the head of its own",
      () => changed((tensors) => tensors.delete("lm_head.weight")),
      /^m\/model\.safetensors: lacks "lm_head\.weight"/,
    ],
    [
      "lacks nearly all",
      () => changed((tensors) => [...tensors.keys()].slice(1).map((name) => tensors.delete(name))),
      /lacks ("[^"]+", ){4}"[^"]+" and \d+ more, which/,
    ],
    [
      "has a tensor more",
      () =>
        changed((tensors) => tensors.set("backbone.layers.9.norm.weight", tensors.get("lm_head.weight") as HostTensor)),
      /^m\/model\.safetensors: has "backbone\.layers\.9\.norm\.weight", which the model does not have/,
    ],
    [
      "has a tensor of another shape",
      () => changed((tensors) => tensors.set(inProj, { dtype: "f32", shape: [2, 3], data: new Float32Array(6) })),
      /^m\/model\.safetensors: "[^"]+in_proj\.weight" is \(2, 3\), but the model's is \(28, 8\); does config\.json/,
    ],
    [
      "has a transposed tensor",
      () =>
        changed((tensors) => {
          const { data } = tensors.get(inProj) as HostTensor;
          tensors.set(inProj, { dtype: "f32", shape: [8, 28], data });
        }),
      /is \(8, 28\), but the model's is \(28, 8\)/,
    ],
    [
      "has integers for weights",
      () =>
        changed((tensors) => {
          tensors.set("backbone.norm_f.weight", { dtype: "i32", shape: [8], data: new Int32Array(8) });
        }),
      /^m\/model\.safetensors: "backbone\.norm_f\.weight" is i32; weights are f32, f16, bf16 or f64/,
    ],
    [
      "was cut short",
      async () => {
        await saved(config);
        await files.truncate("m/model.safetensors", 3000);
      },
      /^m\/model\.safetensors: /,
    ],
    [
      "says another model than its weights",
      async () => {
        await saved(config);
        const text = await configText();
        await put("config.json", text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'));
      },
      /lacks "backbone\.layers\.2\.norm\.weight"/,
    ],
  ])("because it %s is refused, and leaves nothing on the device", async (_, prepare, message) => {
    await prepare();
    const before = device.memory();
    await expect(load()).rejects.toThrow(FormatError);
    await expect(load()).rejects.toThrow(message);
    expect(device.memory()).toMatchObject({ tensors: before.tensors, bytes: before.bytes });
  });
});
