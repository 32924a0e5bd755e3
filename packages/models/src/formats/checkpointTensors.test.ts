// Checkpoint formats: shards, the weights of a folder in each of its forms, and what the reference libraries wrote.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { FileSystem } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { nodeFiles } from "@diffmamba/files/node";
import type { HostTensor } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { dict, join, tensor, torchFile } from "./__fixtures__/build.js";
import { openCheckpointTensors } from "./checkpointTensors.js";
import { FormatError } from "./errors.js";
import { isJsonObject, parseLooseJson, readLooseJson, stringifyLooseJson } from "./looseJson.js";
import { parseSafetensors, SafetensorsFile } from "./safetensors.js";
import { serializeSafetensors, writeSafetensors } from "./safetensorsWrite.js";
import { openShardedSafetensors, writeShardedSafetensors } from "./shardedSafetensors.js";
import { TorchBinFile } from "./torchBin.js";

const f32 = (...values: number[]): HostTensor => ({
  dtype: "f32",
  shape: [values.length],
  data: Float32Array.from(values),
});
const three: readonly (readonly [string, HostTensor])[] = [
  ["c", f32(1, 2)],
  ["a", f32(3, 4, 5, 6)],
  ["b", f32(7)],
];
const bin = (name: string, value: number) =>
  torchFile(dict({ [name]: tensor({ length: 1, shape: [1], strides: [1] }) }), {
    0: new Uint8Array(Float32Array.of(value).buffer),
  });

async function folder(content: Readonly<Record<string, Uint8Array | string>>): Promise<FileSystem> {
  const files = memoryFiles();
  await files.makeDirectory("m");
  for (const [name, bytes] of Object.entries(content)) await files.createExclusive(`m/${name}`, join(bytes));
  return files;
}

describe("sharded safetensors", () => {
  it("writes one file where it fits and shards where not, and reads both back", async () => {
    for (const [maxShardBytes, written] of [
      [28, ["model.safetensors"]],
      [24, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]],
      [1, [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`).concat("model.safetensors.index.json")],
    ] as const) {
      const files = memoryFiles();
      expect(await writeShardedSafetensors(files, "m", three, { maxShardBytes })).toEqual(written);
      expect((await files.list("m")).map((entry) => entry.name)).toEqual([...written].sort());
      const opened = await openCheckpointTensors(files, "m");
      expect([...opened.names].sort()).toEqual(["a", "b", "c"]);
      for (const [name, value] of three) expect(await opened.read(name)).toEqual(value);
      await opened.close();
    }
  });

  it("writes the index that the Hugging Face library writes", async () => {
    const files = memoryFiles();
    await writeShardedSafetensors(files, "m", three, { maxShardBytes: 24 });
    expect(await readLooseJson(files, "m/model.safetensors.index.json")).toEqual({
      metadata: { total_size: 28 },
      weight_map: {
        a: "model-00001-of-00002.safetensors",
        b: "model-00002-of-00002.safetensors",
        c: "model-00001-of-00002.safetensors",
      },
    });
    const shard = await SafetensorsFile.open(files, "m/model-00001-of-00002.safetensors");
    expect(Object.fromEntries(shard.metadata)).toEqual({ format: "pt" });
  });

  it("leaves no weights of an earlier save to be found first", async () => {
    const files = memoryFiles();
    await writeShardedSafetensors(files, "m", [["old", f32(0)]]);
    await writeShardedSafetensors(files, "m", three, { maxShardBytes: 8 });
    expect([...(await openCheckpointTensors(files, "m")).names].sort()).toEqual(["a", "b", "c"]);
    await writeShardedSafetensors(files, "m", [["new", f32(0)]]);
    expect(await files.stat("m/model.safetensors.index.json")).toBe(undefined);
    expect((await openCheckpointTensors(files, "m")).names).toEqual(["new"]);
  });

  it("writes a model without tensors, and refuses bad names and sizes", async () => {
    const files = memoryFiles();
    expect(await writeShardedSafetensors(files, "m", [])).toEqual(["model.safetensors"]);
    expect((await openCheckpointTensors(files, "m")).names).toEqual([]);
    const twice = [...three, ["a", f32(1)]] as const;
    await expect(writeShardedSafetensors(files, "m", twice, { maxShardBytes: 8 })).rejects.toThrow(
      'm: cannot write tensor "a": two',
    );
    await expect(writeShardedSafetensors(files, "m", three, { maxShardBytes: 0 })).rejects.toThrow(RangeError);
    await expect(writeShardedSafetensors(files, "m", three, { maxShardBytes: Number.NaN })).rejects.toThrow(RangeError);
    const bad = [["w", { ...f32(1), shape: [0.5] }]] as const;
    await expect(writeShardedSafetensors(files, "m", bad)).rejects.toThrow(
      'm: cannot write tensor "w": bad shape (0.5)',
    );
  });

  const index = (map: unknown) => JSON.stringify({ weight_map: map });
  const shard = serializeSafetensors([["a", f32(1)]]);

  it.each<readonly [string, string, string]>([
    ["JSON that is not", '{"weight_map": ', "line 1, column 16: expected a value; the file ends here"],
    ["no map", "{}", 'has no "weight_map" object'],
    ["a list", "[]", 'has no "weight_map" object'],
    ["a map that is none", index([]), 'has no "weight_map" object'],
    ["a file that is no text", index({ a: 1 }), 'tensor "a": its file is no text'],
    [
      "a path upwards",
      index({ a: "../secret" }),
      'tensor "a": its file is "../secret"; expected the name of a file beside the index',
    ],
    ["an absolute path", index({ a: "/etc/passwd" }), 'its file is "/etc/passwd"'],
    ["the folder above", index({ a: ".." }), 'its file is ".."'],
    ["a name twice", '{"weight_map": {"a": "s1", "a": "s2"}}', 'the key "a" stands here twice'],
    [
      "a missing shard",
      index({ a: "s1", b: "s2" }),
      'names the file "s2" for tensor "b", but m/s2 is missing. Nothing was loaded.',
    ],
  ])("refuses an index with %s", async (_, text, message) => {
    const files = await folder({ "model.safetensors.index.json": text, s1: shard });
    const opening = openShardedSafetensors(files, "m/model.safetensors.index.json");
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(/^m\/model\.safetensors\.index\.json: /);
  });

  it("names the shard that lacks a tensor, and the one that is cut short", async () => {
    const text = index({ a: "s1", b: "s1" });
    await expect(
      openCheckpointTensors(await folder({ "model.safetensors.index.json": text, s1: shard }), "m"),
    ).rejects.toThrow('m/s1: has no tensor "b", which m/model.safetensors.index.json says is there');
    const cut = await folder({
      "model.safetensors.index.json": index({ a: "s1" }),
      s1: shard.subarray(0, shard.length - 1),
    });
    await expect(openCheckpointTensors(cut, "m")).rejects.toThrow(/^m\/s1: .* the file is cut short/);
  });
});

describe("openCheckpointTensors", () => {
  const forms = {
    "model.safetensors": serializeSafetensors([["w", f32(1)]]),
    "model.safetensors.index.json": '{"weight_map": {"w": "model-00001-of-00001.safetensors"}}',
    "pytorch_model.bin": bin("w", 3),
    "pytorch_model.bin.index.json": '{"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}',
  };
  const shards = {
    "model-00001-of-00001.safetensors": serializeSafetensors([["w", f32(2)]]),
    "pytorch_model-00001-of-00001.bin": bin("w", 4),
  };

  it("takes the first form that is there", async () => {
    const names = Object.keys(forms);
    for (const [i, name] of names.entries()) {
      const files = await folder({ ...Object.fromEntries(Object.entries(forms).slice(i)), ...shards });
      const opened = await openCheckpointTensors(files, "m/");
      expect(opened.path).toBe(`m/${name}`);
      expect(opened.names).toEqual(["w"]);
      expect(opened.has("w")).toBe(true);
      expect(opened.has("v")).toBe(false);
      expect(opened.describe("w")).toEqual({ dtype: "f32", shape: [1] });
      expect([...(await opened.read("w")).data]).toEqual([i + 1]);
      await expect(opened.read("v")).rejects.toThrow(/^m\/.*"v"/);
      await opened.close();
    }
  });

  it("says what was looked for", async () => {
    await expect(openCheckpointTensors(memoryFiles(), "none")).rejects.toThrow("none: no such folder");
    const empty =
      "m: no weights: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json";
    await expect(openCheckpointTensors(await folder({}), "m")).rejects.toThrow(`${empty}; the folder is empty`);
    const files = await folder({ "config.json": "{}" });
    await files.makeDirectory("m/model.safetensors");
    await expect(openCheckpointTensors(files, "m")).rejects.toThrow(`${empty}; it has config.json, model.safetensors/`);
    await expect(openCheckpointTensors(files, "m/config.json")).rejects.toThrow(
      "m/config.json: a file; expected a model folder",
    );
    await expect(openCheckpointTensors(files, "m/config.json")).rejects.toThrow(FormatError);
  });
});

describe("what the reference libraries wrote", () => {
  const goldens = fileURLToPath(new URL("../../../conformance/fixtures/goldens/", import.meta.url));
  const models = ["hf_mamba_tiny", "hf_mamba2_tiny", "hf_diffmamba2_tiny"];
  const files = nodeFiles();
  const bits = (tensor: HostTensor) =>
    new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);

  it.each(models)("%s: the .bin equals the .safetensors, bit for bit", async (model) => {
    const safe = await SafetensorsFile.open(files, `${goldens}${model}/model.safetensors`);
    const torch = await TorchBinFile.open(files, `${goldens}${model}/pytorch_model.bin`);
    expect(safe.names.length).toBeGreaterThan(20);
    for (const name of safe.names) {
      const a = await safe.read(name);
      const b = await torch.read(name);
      expect({ name, dtype: b.dtype, shape: b.shape }).toEqual({ name, dtype: a.dtype, shape: a.shape });
      expect(Buffer.compare(bits(b), bits(a)), name).toBe(0);
    }
    // A tied head is stored once in safetensors and twice, over one storage, in the .bin.
    for (const name of torch.names.filter((other) => !safe.has(other))) {
      expect(name).toBe("lm_head.weight");
      const [head, embedding] = [await torch.read(name), await safe.read("backbone.embeddings.weight")];
      expect(head.shape).toEqual(embedding.shape);
      expect(Buffer.compare(bits(head), bits(embedding))).toBe(0);
    }
  });

  it.each(models)("%s: writing what was read gives the reference's file, byte for byte", async (model) => {
    const original = new Uint8Array(readFileSync(`${goldens}${model}/model.safetensors`));
    const { tensors, metadata } = parseSafetensors(original, model);
    expect(Buffer.compare(serializeSafetensors(tensors, Object.fromEntries(metadata)), original)).toBe(0);
    const copy = memoryFiles();
    await writeSafetensors(copy, "m", tensors, { metadata: Object.fromEntries(metadata) });
    expect(Buffer.compare(await copy.read("m"), original)).toBe(0);
  });

  it.each(models)("%s: config.json survives a round trip", async (model) => {
    const config = await readLooseJson(files, `${goldens}${model}/config.json`);
    expect(isJsonObject(config) && config.hidden_size).toBe(32);
    if (model !== "hf_mamba_tiny") {
      expect(isJsonObject(config) && config.time_step_limit).toEqual([0, Number.POSITIVE_INFINITY]);
    }
    expect(parseLooseJson(stringifyLooseJson(config), "copy")).toEqual(config);
  });
});
