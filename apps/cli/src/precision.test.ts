// Layer: apps/cli, tests. Mixed precision by the real command, on the default backend: bf16 and f16 follow f32, go on where they
// stopped, and activations that are computed again change no bit.
import { afterAll, beforeAll, expect, it } from "vitest";
import { someText, type Workplace, workplace } from "./command.testing.js";

let place: Workplace;
beforeAll(() => {
  place = workplace();
  place.write("text.txt", someText(6000));
});
afterAll(() => place?.dispose());

/** A run of the preset `tiny` at a rate at which steps do not amplify what rounding does. */
const flags = (out: string, steps: number, ...more: readonly string[]) => [
  ...["train", "--preset", "tiny", "--data", "text.txt", "--out", out, "--steps", `${steps}`, "--seed", "3"],
  ...["--set", "lr=1e-3", "--set", "sampleTokens=0", "--set", "evalEvery=0", ...more],
];
const train = (...args: Parameters<typeof flags>) => place.json(flags(...args));

const losses = (run: string): number[] =>
  place
    .read(`${run}/metrics.jsonl`)
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).loss);

const weights = (run: string, step: number) => place.read(`${run}/step-${step}/model.safetensors`);

it("bf16 and f16 follow f32 within 1%", { timeout: 240_000 }, async () => {
  await Promise.all([
    train("f32", 24),
    train("bf16", 24, "--precision", "bf16"),
    train("f16", 24, "--precision", "f16"),
  ]);
  const full = losses("f32");
  expect(full[23]).toBeLessThan(full[0] - 0.5);
  for (const run of ["bf16", "f16"]) {
    for (const [i, loss] of losses(run).entries())
      expect(Math.abs(loss / full[i] - 1), `${run} ${i}`).toBeLessThan(0.01);
    expect(losses(run)).not.toEqual(full);
  }
});

it("goes on to the same bits, and recomputes to the same bits", { timeout: 240_000 }, async () => {
  const half = (out: string, steps: number, ...more: readonly string[]) =>
    train(out, steps, "--precision", "bf16", "--set", "schedule=constant", ...more);
  await Promise.all([half("whole", 12), half("parts", 5), half("again", 12, "--checkpoint-activations")]);
  await place.json(["train", "--resume", "--out", "parts", "--steps", "12"]);
  expect(weights("parts", 12)).toEqual(weights("whole", 12));
  expect(weights("again", 12)).toEqual(weights("whole", 12));
});

it("refuses a precision that there is not", async () => {
  const { code, stderr } = await place.run(flags("none", 1, "--precision", "f8"));
  expect(code).toBe(2);
  expect(stderr).toContain("--precision f8: train.precision must be one of f32, bf16, f16.");
});
