// Layer: apps/cli, tests. The paper's presets through the real command, at reduced width: what they train on and how they are scored.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Workplace, workplace } from "./command.testing.js";

let place: Workplace;
beforeAll(() => {
  place = workplace();
  const words = ["the", "state", "of", "a", "space", "differs", "from", "its", "noise"];
  place.write("letters.txt", Array.from({ length: 3000 }, (_, i) => words[(i * i + (i % 7)) % words.length]).join(" "));
});
afterAll(() => place?.dispose());

const reduced = [
  "dModel=32",
  "headDim=4",
  "dState=4",
  "nLayers=1",
  "batchSize=4",
  "length=32",
  "steps=2",
  "sampleTokens=8",
].flatMap((setting) => ["--set", setting]);

describe("the paper's presets", () => {
  it("train another variant by flags, on rows, and are scored on rows", async () => {
    const flags = ["--preset", "text8-6", "--variant", "diffmamba2", "--lambda", "scalar", ...reduced];
    const result = await place.json<{
      vocabSize: number;
      step: number;
      evaluation: { batches: number; pplBatchMean: number };
    }>([...["train", ...flags, "--data", "letters.txt", "--out", "run"]]);
    expect(result).toMatchObject({ vocabSize: 27, step: 2 });
    const settings = JSON.parse(place.read("run/step-2/diffmamba_settings.json").toString());
    expect(settings.model).toMatchObject({
      variant: "diffmamba2",
      lambda: "scalar",
      mixersPerBlock: 2,
      adaptive: { divValue: 1 },
    });
    expect(settings.train).toMatchObject({ warmup: 1000, scheduleSteps: 800_000, decayRule: "backbone", clip: 0 });
    // The held-out tenth in 4 rows, in windows of 32.
    const held = JSON.parse(place.read("run/data/store.json").toString()).splits.valid.tokens;
    expect(result.evaluation.batches).toBe(Math.ceil((Math.floor(held / 4) - 1) / 32));
    expect(result.evaluation.pplBatchMean).toBeGreaterThan(1);
  });

  it("of WikiText-103 say that their words want a prepared store", async () => {
    const { code, stderr } = await place.run([
      ...["train", "--preset", "wt103-6", ...reduced, "--data", "letters.txt", "--out", "words"],
    ]);
    expect(stderr).toContain("words have the vocabulary of a train split");
    expect(stderr).toContain("diffmamba data prepare wikitext-103");
    expect(code).toBe(2);
  });
});
