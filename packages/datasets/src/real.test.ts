// Layer: datasets, tests on real data: run where DIFFMAMBA_DATA names a folder that holds the files, skipped by name elsewhere.
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { nodeFiles } from "@diffmamba/files/node";
import { loadTokenizer } from "@diffmamba/tokenizer";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rowBatches } from "./batches.js";
import { fileSource } from "./byte-source.js";
import { prepareDataSet } from "./data-sets.js";
import { prepareBytes, prepareText } from "./prepare.js";
import { TokenStore } from "./store.js";

const data = process.env.DIFFMAMBA_DATA ?? "";
const has = (...names: string[]) => data !== "" && names.every((name) => existsSync(`${data}/${name}`));
/** Tens of megabytes are unpacked and encoded: long on a busy machine. */
const patient = { timeout: 300_000 };
const files = nodeFiles();
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(`${tmpdir()}/diffmamba-datasets-`);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function contentOf(path: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of fileSource(files, path).open()) parts.push(part);
  return Buffer.concat(parts);
}

describe.skipIf(!has("wiki8.xz"))("wiki8 (needs DIFFMAMBA_DATA with wiki8.xz)", patient, () => {
  it("has 27 symbols and 45M/2.5M/2.5M characters, each part stripped", async () => {
    const source = `${data}/wiki8.xz`;
    const store = await prepareDataSet("wiki8", { files, source, out: `${folder}/wiki8` });
    const text = (await contentOf(source)).toString("latin1");
    const parts = { train: [0, 45e6], valid: [45e6, 47.5e6], test: [47.5e6, 50e6] } as const;
    for (const [name, [from, to]] of Object.entries(parts)) {
      const expected = text.slice(from, to).trim();
      const split = store.split(name);
      expect(split.length).toBe(expected.length);
      expect(split.bytes).toBe(expected.length);
      for (const at of [0, 1_234_567, expected.length - 1000]) {
        const ids = await split.read(at, 1000);
        expect((await store.loadTokenizer()).decode(ids)).toBe(expected.slice(at, at + 1000));
      }
    }
    expect(store.manifest).toMatchObject({ name: "wiki8", dtype: "u8", vocabSize: 27, source: { bytes: 50_000_000 } });
    await expect(prepareDataSet("text8", { files, source, out: `${folder}/text8` })).rejects.toThrow(
      /wiki8\.xz: this is not text8: it holds 50,000,000 bytes/,
    );

    const batches = rowBatches(store.split("train"), { batchSize: 170, length: 512, rotateSeed: 42 });
    expect(batches.batchesPerEpoch).toBe(Math.ceil((Math.floor(store.split("train").length / 170) - 1) / 512));
    const batch = await batches.nextBatch();
    expect(batch?.tokens).toHaveLength(170 * 512);
  });
});

describe.skipIf(!has("enwik8_prefix.xz"))(
  "a prefix of enwik8 (needs DIFFMAMBA_DATA with enwik8_prefix.xz)",
  patient,
  () => {
    it("is never enwik8, but is prepared as bytes, newlines kept or dropped", async () => {
      const source = `${data}/enwik8_prefix.xz`;
      await expect(prepareDataSet("enwik8", { files, source, out: `${folder}/enwik8` })).rejects.toThrow(
        /enwik8_prefix\.xz: this is not enwik8: it holds 4,154,399 bytes, and enwik8 has 100,000,000/,
      );
      const bytes = await contentOf(source);
      const kept = new Set(bytes);
      expect(kept.has(0x0a)).toBe(true);
      for (const newline of ["keep", "drop"] as const) {
        const out = `${folder}/prefix-${newline}`;
        const store = await prepareBytes({ files, source, out, alphabet: "seen", newline });
        expect(store.vocabSize).toBe(newline === "keep" ? kept.size : kept.size - 1);
        const total = store.splitNames.reduce((sum, name) => sum + store.split(name).length, 0);
        expect(total).toBe(newline === "keep" ? bytes.length : bytes.filter((byte) => byte !== 0x0a).length);
        const start = bytes.toString("utf8", 0, 3000).slice(0, 2000);
        const ids = await store.split("train").read(0, 2000);
        const text = (await store.loadTokenizer()).decode(ids);
        expect(text.slice(0, 1000)).toBe((newline === "keep" ? start : start.replaceAll("\n", "")).slice(0, 1000));
      }
    });
  },
);

const shakespeare = "tinyshakespeare.txt";
const neox = "tokenizers/gpt-neox-20b";

describe.skipIf(!has(shakespeare))("Shakespeare (needs DIFFMAMBA_DATA with tinyshakespeare.txt)", patient, () => {
  it("comes back from a store of characters", async () => {
    const source = `${data}/${shakespeare}`;
    await prepareText({ files, source, out: `${folder}/characters`, splits: { valid: { fraction: 0.1 } } });
    const store = await TokenStore.open(files, `${folder}/characters`);
    expect(store.vocabSize).toBe(65);
    const tokenizer = await store.loadTokenizer();
    let text = "";
    for (const name of store.splitNames) {
      const split = store.split(name);
      text += tokenizer.decode(await split.read(0, split.length));
    }
    expect(text).toBe((await contentOf(source)).toString("utf8"));
  });

  it.skipIf(!has(`${neox}/tokenizer.json`))("is the same in windows as whole with GPT-NeoX's tokenizer", async () => {
    const source = `${data}/${shakespeare}`;
    const tokenizer = await loadTokenizer(files, `${data}/${neox}`);
    const store = await prepareText({ files, source, out: `${folder}/neox`, tokenizer, splits: {} });
    const split = store.split("train");
    const whole = tokenizer.encode((await contentOf(source)).toString("utf8"));
    expect(await split.read(0, split.length)).toEqual(whole);
    expect(split.bytes).toBe(tokenizer.byteLength(whole));
    expect(store.manifest).toMatchObject({ dtype: "u16", vocabSize: 50_277, tokenizer: { kind: "tokenizer.json" } });
  });
});
