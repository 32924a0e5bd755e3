// Layer: apps/playground. The built page in a real browser, once on WebAssembly and once on WebGPU: two models learn, write, are saved and
// loaded again, and the command line goes on with what the page has saved.
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { unzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findChromium, openStage, type Stage, Visit } from "./e2e.testing.js";
import { rhyme } from "./worker/lab.testing.js";

const chromium = findChromium();
const title = chromium === undefined ? "the page: there is no Chromium (Debian: chromium)" : "the page";
const command = path.resolve(import.meta.dirname, "../../cli/bin/diffmamba.js");

interface Case {
  readonly backend: string;
  readonly device: RegExp;
  readonly settings: Readonly<Record<string, string | number>>;
  /** What is pasted; the bundled sample where nothing is. */
  readonly text?: string;
  readonly prompt: string;
  readonly characters: number;
}

/** WebGPU is computed in software where there is no GPU, in seconds a step: there it gets a text that is learnt in few. */
const cases: readonly Case[] = [
  {
    backend: "wasm",
    device: /^WASM, (relaxed )?SIMD, \d+ threads?$/,
    settings: { size: "small", evaluateEvery: 20, evaluateTokens: 1024, sampleEvery: 40, sampleTokens: 40 },
    prompt: "One evening ",
    characters: 60,
  },
  {
    backend: "webgpu",
    device: /./,
    settings: {
      size: "tiny",
      rate: 0.03,
      warmup: 2,
      evaluateEvery: 4,
      evaluateTokens: 128,
      sampleEvery: 4,
      sampleTokens: 4,
    },
    text: rhyme,
    prompt: "the cat ",
    characters: 16,
  },
];

describe.skipIf(chromium === undefined)(title, { timeout: 400_000 }, () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStage(chromium as string);
  }, 120_000);
  afterAll(() => stage?.close());

  it.each(cases)("trains on $backend, writes, saves and loads again", async (given) => {
    const { backend, device, settings, text, prompt, characters } = given;
    const visit = await Visit.begin(stage, { backend, steps: 2000, ...settings });
    const { page } = visit;
    expect(await page.locator("#backend").inputValue()).toBe(backend);
    expect(await visit.text("#backend-device")).toMatch(device);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);

    if (text !== undefined) await visit.paste(text);
    const scores = await visit.trainBelow(3, 300_000);
    expect(scores.every((score) => score > 0)).toBe(true);
    await page.click("#pause");
    await page.locator("#pause", { hasText: "Resume" }).waitFor();
    expect(await visit.text("#phase")).toMatch(/^Paused at step \d+ of 2,000$/);
    expect(await visit.text(".lambdas li:first-child b")).toMatch(/^0\.\d{3}$/);
    expect((await page.locator(".sample-text").allInnerTexts()).every((sample) => sample.length > 0)).toBe(true);

    const texts = await visit.write("both", prompt, characters);
    expect(texts.map(({ length }) => length)).toEqual([characters, characters]);
    const zip = await visit.save("differential", stage.folder);
    expect(await visit.load(zip)).toBe(path.basename(zip, ".zip"));
    expect(await visit.write("loaded", prompt, characters)).toEqual([texts[1]]);

    const goesOn = await generate(unpack(zip, path.join(stage.folder, backend)), prompt, 16);
    expect(goesOn).toBe(texts[1]?.slice(0, 16));

    await page.click("#pause");
    await page.locator("#pause", { hasText: "Pause" }).waitFor();
    expect(visit.complaints).toEqual([]);
    await page.close();
  });
});

/** @returns the model's folder */
function unpack(zip: string, folder: string): string {
  for (const [name, content] of Object.entries(unzipSync(readFileSync(zip)))) {
    const file = path.join(folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
  return path.join(folder, path.basename(zip, ".zip"));
}

/** What the command line writes with a checkpoint, without chance. */
async function generate(checkpoint: string, prompt: string, tokens: number): Promise<string> {
  const args = ["generate", "--checkpoint", checkpoint, "--prompt", prompt, "--max-tokens", String(tokens)];
  const { stdout } = await promisify(execFile)(process.execPath, [command, ...args, "--temperature", "0", "--json"]);
  return (JSON.parse(stdout) as { readonly text: string }).text;
}
