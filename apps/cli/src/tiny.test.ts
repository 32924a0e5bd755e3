// Layer: apps/cli, tests. The preset `tiny` from a text to a trained model, text, a report and a converted model, by the real command.
import { readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { smallest, someText, type Workplace, workplace } from "./command.testing.js";

interface Evaluation {
  readonly loss: number;
  readonly tokens: number;
}

interface TrainDocument {
  readonly folder: string;
  readonly parameters: number;
  readonly vocabSize: number;
  readonly stopped: string;
  readonly step: number;
  readonly checkpoint: string;
  readonly initial: Evaluation;
  readonly evaluation: Evaluation;
}

interface EvalDocument {
  readonly tokens: number;
  readonly nll: number;
  readonly ppl: number;
  readonly bpb: number;
  readonly bytes: number;
}

interface GenerateDocument {
  readonly prompt: string;
  readonly text: string;
  readonly tokens: number;
  readonly seed: number;
  readonly ids: readonly number[];
}

const text = someText(6000);
const heldOut = someText(7000).slice(6000);
let place: Workplace;
let trained: TrainDocument;

beforeAll(async () => {
  place = workplace();
  place.write("text.txt", text);
  place.write("heldout.txt", heldOut);
  const flags = ["--preset", "tiny", "--data", "text.txt", "--out", "run", "--steps", "40", "--seed", "3"];
  trained = await place.json<TrainDocument>(["train", ...flags, "--set", "sampleTokens=8", "--set", "evalEvery=20"]);
});
afterAll(() => place?.dispose());

const evaluate = (checkpoint: string) =>
  place.json<EvalDocument>(["eval", "--checkpoint", checkpoint, "--data", "heldout.txt"]);

describe("train", () => {
  it("learns, and says where the run is, what it has and how it went", () => {
    expect(trained).toMatchObject({ folder: "run", vocabSize: 256, stopped: "finished", step: 40 });
    expect(trained.checkpoint).toBe("run/step-40");
    expect(Math.abs(trained.initial.loss - Math.log(256))).toBeLessThan(0.1 * Math.LN2);
    expect(trained.evaluation.loss).toBeLessThan(trained.initial.loss - 1.5);
  });

  it("leaves a run folder whose checkpoints are Hugging Face folders and training state", () => {
    const names = ["best", "data", "last", "metrics.jsonl", "plan.json", "run.json", "samples.jsonl", "start.json"];
    expect(readdirSync(place.at("run"))).toEqual(expect.arrayContaining([...names, "step-40"]));
    expect(readdirSync(place.at("run")).filter((name) => /tmp|lock/.test(name))).toEqual([]);
    expect(readdirSync(place.at("run/step-40")).sort()).toEqual(
      expect.arrayContaining(["config.json", "diffmamba_settings.json", "model.safetensors", "training"]),
    );
    expect(JSON.parse(place.read("run/step-40/config.json").toString())).toMatchObject({
      model_type: expect.stringMatching(/^diffmamba/),
    });
    const lines = place.read("run/metrics.jsonl").toString().trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  });

  it("refuses a folder that holds a run, and goes on with --resume", async () => {
    const again = ["train", "--preset", "tiny", "--data", "text.txt", "--out", "run", "--steps", "45"];
    const refused = await place.run(again);
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toContain("run: holds a run already");
    const more = await place.json<TrainDocument>(["train", "--resume", "--out", "run", "--steps", "45"]);
    expect(more).toMatchObject({ step: 45, checkpoint: "run/step-45", parameters: trained.parameters });
    const steps = place.read("run/metrics.jsonl").toString().trimEnd().split("\n");
    expect(steps).toHaveLength(45);
  });

  it("gives the same bits for the same seed with any number of threads, and others for another seed", async () => {
    const train = (out: string, seed: string, threads: string) => {
      const flags = ["--out", out, "--steps", "3", "--seed", seed, "--threads", threads];
      return place.json(["train", ...smallest, "--data", "text.txt", ...flags]);
    };
    await Promise.all([train("a", "1", "1"), train("b", "1", "3"), train("c", "2", "1")]);
    const weights = (run: string) => place.read(`${run}/step-3/model.safetensors`);
    expect(weights("a").equals(weights("b"))).toBe(true);
    expect(weights("a").equals(weights("c"))).toBe(false);
  });

  it("prints a sentence without --json", async () => {
    const flags = [...smallest, "--data", "text.txt", "--out", "plain", "--steps", "1"];
    const { code, stdout } = await place.run(["train", ...flags]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^1 steps, saved plain\/step-1; held-out loss [\d.]+ nats a token; [\d.]+ bits a byte\n$/);
  });
});

describe("eval", () => {
  it("scores N - 1 of N tokens, and its numbers belong together", async () => {
    const score = await evaluate("run");
    const bytes = Buffer.byteLength(heldOut);
    expect(score.tokens).toBe(bytes - 1);
    expect(score.ppl).toBeCloseTo(Math.exp(score.nll), 8);
    expect(score.bpb).toBeCloseTo((score.nll * score.tokens) / Math.LN2 / score.bytes, 8);
    expect(score.nll).toBeLessThan(4);
  });

  it("scores a store by its last split, and a checkpoint of a run by its own folder", async () => {
    const store = await place.json<EvalDocument>(["eval", "--checkpoint", "run/step-40", "--data", "run/data"]);
    const { splits } = JSON.parse(place.read("run/data/store.json").toString());
    expect(store.tokens).toBe(splits.valid.tokens - 1);
    expect(splits.train.tokens + splits.valid.tokens).toBe(Buffer.byteLength(text));
    expect(trained.evaluation.tokens).toBe(store.tokens);
    expect(store.nll).toBe(trained.evaluation.loss);
  });
});

describe("generate", () => {
  const generate = (seed: string, ...more: string[]) =>
    place.json<GenerateDocument>([
      ...["generate", "--checkpoint", "run", "--prompt", "the state", "--max-tokens", "12", "--seed", seed],
      ...more,
    ]);

  it("goes on with the prompt; the same seed gives the same text", async () => {
    const [one, same, other] = await Promise.all([generate("5"), generate("5"), generate("6")]);
    expect(one).toMatchObject({ prompt: "the state", tokens: 12, seed: 5 });
    expect(one.ids).toHaveLength(12);
    expect(same.text).toBe(one.text);
    expect(other.text).not.toBe(one.text);
  });

  it("keeps states in 16 bits where it is told to", async () => {
    const [one, same] = await Promise.all([1, 2].map(() => generate("5", "--state-dtype", "f16")));
    expect(one.ids).toHaveLength(12);
    expect(same).toEqual(one);
  });

  it("takes the most probable tokens at temperature 0, whatever the seed", async () => {
    const [one, other] = await Promise.all([generate("1", "--temperature", "0"), generate("2", "--temperature", "0")]);
    expect(one.text).toBe(other.text);
  });

  it("writes prompt and text to stdout without --json", async () => {
    const { text: expected } = await generate("5");
    const flags = ["--checkpoint", "run", "--prompt", "the state", "--max-tokens", "12", "--seed", "5"];
    expect((await place.run(["generate", ...flags])).stdout).toBe(`the state${expected}\n`);
  });
});

describe("report", () => {
  it("is one page that needs nothing else, and holds curves, lambdas, settings and samples", async () => {
    expect(await place.json(["report", "run", "--out", "pages/report.html", "--title", "<b>A & B</b>"])).toEqual({
      report: "pages/report.html",
      runs: ["run"],
    });
    const page = place.read("pages/report.html").toString();
    expect(page).toMatch(/^<!doctype html>/);
    expect(page.trimEnd()).toMatch(/<\/html>$/);
    expect(page).not.toMatch(/<(link|script|img|iframe|object|embed|base)\b|\s(src|href|srcset)\s*=|url\(|@import/i);
    expect(page.match(/https?:\/\/[^"\s<]*/g)?.filter((url) => !url.startsWith("http://www.w3.org/")) ?? []).toEqual(
      [],
    );
    for (const title of ["Numbers", "Loss", "Lambda", "Samples", "Settings"])
      expect(page).toContain(`<h2>${title}</h2>`);
    expect(page).toContain("layer 1");
    expect(page).toContain("train.steps");
    expect(page).toContain("&lt;b&gt;A &amp; B&lt;/b&gt;");
  });
});

describe("convert", () => {
  let vanilla: TrainDocument;
  beforeAll(async () => {
    const flags = ["--variant", "mamba2", "--data", "text.txt", "--steps", "20", "--set", "sampleTokens=0"];
    vanilla = await place.json<TrainDocument>(["train", "--preset", "tiny", ...flags, "--out", "vanilla"]);
  });

  it.each(["semantic", "reference"])(
    "makes a vanilla Mamba-2 differential (%s), and the result can be scored",
    async (slicing) => {
      const to = `made-${slicing}`;
      const flags = ["--variant", "diffmamba2", "--pattern", "alternate", "--slicing", slicing];
      const made = await place.json(["convert", "--from", "vanilla", "--to", to, ...flags]);
      expect(made).toMatchObject({ variant: "diffmamba2", pattern: "alternate", dtype: "f32", tokenizer: true });
      expect(made.parameters).not.toBe(vanilla.parameters);
      const score = await evaluate(to);
      expect(Number.isFinite(score.nll)).toBe(true);
      expect(score.tokens).toBe(Buffer.byteLength(heldOut) - 1);
    },
  );

  it("keeps what a model computes where it only changes the form, and touches nothing that is there", async () => {
    expect(await place.json(["convert", "--from", "vanilla", "--to", "copy"])).toMatchObject({
      variant: "mamba2",
      parameters: vanilla.parameters,
    });
    const [before, after] = await Promise.all([evaluate("vanilla"), evaluate("copy")]);
    // A copy does not know how long the windows were that it was trained on.
    const window = ["--data", "heldout.txt", "--length", "32", "--batch-size", "4"];
    expect((await place.json<EvalDocument>(["eval", "--checkpoint", "copy", ...window])).nll).toBe(before.nll);
    expect(after.tokens).toBe(before.tokens);
    const again = await place.run(["convert", "--from", "vanilla", "--to", "copy"]);
    expect(again).toMatchObject({ code: 1, stdout: "" });
    expect(again.stderr).toContain("copy: something is already there");
  });
});

interface Doctor {
  readonly version: string;
  readonly backends: readonly {
    readonly name: string;
    readonly available: boolean;
    readonly reason: string | null;
    readonly device: string | null;
  }[];
}

describe("doctor", () => {
  it("says of every backend whether it works, and why not", async () => {
    const { backends, version } = await place.json<Doctor>(["doctor"]);
    expect(version).toMatch(/^\d+\.\d+\.\d+/);
    expect(backends[1]).toEqual({ name: "reference", available: true, reason: null, device: expect.any(String) });
    expect(backends.map(({ name }) => name)).toEqual(["cpu", "reference", "webgpu", "cuda"]);
    for (const { available, reason, device } of backends) {
      expect(available ? device : reason).toMatch(/\S/);
      expect(available ? reason : device).toBeNull();
    }
  });

  it("reports the CPU's instruction set and threads", async () => {
    const [cpu] = (await place.json<Doctor>(["doctor"], { DIFFMAMBA_THREADS: "3" })).backends;
    if (cpu.available) expect(cpu.device).toMatch(/^(base|avx2|avx512), 3 threads$/);
    else expect(cpu.reason).toMatch(/^there is no native addon for \S+; install a C\+\+ compiler/);
  });
});

describe("the backend where none is named", () => {
  const flags = (out: string) => [
    ...["train", ...smallest, "--data", "text.txt", "--out", out, "--steps", "1"],
    ...["--set", "evalTokens=0"],
  ];
  const backendOf = (run: string) => JSON.parse(place.read(`${run}/start.json`).toString()).backend;

  it("is cpu where it works, and is recorded", async () => {
    const [cpu] = (await place.json<Doctor>(["doctor"])).backends;
    await place.json(flags("default"));
    expect(backendOf("default")).toBe(cpu.available ? "cpu" : "reference");
  });

  it("is the reference where cpu does not work, which is said in one line with the reason and the remedy", async () => {
    const { code, stderr } = await place.run([...flags("fallen"), "--threads", "2"], {
      DIFFMAMBA_CPU_ADDON: "nothing",
    });
    expect(code).toBe(0);
    const message =
      /^using the reference backend, which is much slower than cpu: its native addon does not load: .*nothing.*; correct or unset DIFFMAMBA_CPU_ADDON\.$/;
    expect(stderr.split("\n").filter((line) => /reference backend/.test(line))).toEqual([
      expect.stringMatching(message),
    ]);
    expect(backendOf("fallen")).toBe("reference");
  });

  it("is not replaced where cpu is named", async () => {
    const { code, stdout, stderr } = await place.run([...flags("named"), "--backend", "cpu"], {
      DIFFMAMBA_CPU_ADDON: "nothing",
    });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^error: backend cpu does not work here: its native addon does not load: .*doctor/m);
  });
});

describe("data prepare", () => {
  it("makes a store that is trained on as it is", async () => {
    const made = await place.json(["data", "prepare", "text", "--from", "text.txt", "--out", "store", "--test", "0"]);
    expect(made).toMatchObject({ store: "store", tokenizer: "characters", vocabSize: new Set(text).size });
    const flags = [...smallest, "--data", "store", "--out", "on-store", "--steps", "1"];
    expect(await place.json(["train", ...flags])).toMatchObject({ vocabSize: new Set(text).size, step: 1 });
  });
});
