// Layer: train, tests of mixed precision: bf16 and f16 follow the curve of f32, masters are what is saved, a run goes on to the same
// bits, and a loss scale that overflows comes down and loses no step but those.
import { memoryFiles } from "@diffmamba/files/memory";
import { SafetensorsFile } from "@diffmamba/models";
import { type BuildOptions, schedules } from "@diffmamba/nn";
import { type DType, reference } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { mambaRun } from "./bigram.testing.js";
import type { TrainEvent } from "./events.js";
import type { TrainerOptions } from "./options.js";
import { contentOf, errorOf } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference();
afterAll(() => device.dispose());

async function run(
  compute: DType | undefined,
  change: Partial<TrainerOptions> = {},
  files = memoryFiles(),
  signal?: AbortSignal,
) {
  const build: BuildOptions = compute === undefined ? {} : { compute };
  const events: TrainEvent[] = [];
  const options = mambaRun(
    device,
    files,
    { resume: true, onEvent: (event) => void events.push(event), ...change },
    build,
  );
  using _model = options.model;
  await new Trainer(options).run(signal && { signal });
  return { files, content: await contentOf(files), events };
}

const losses = ({ content }: Awaited<ReturnType<typeof run>>) => content.metrics.map(({ loss }) => loss as number);

describe("mixed precision", () => {
  // A rate at which steps do not amplify what rounding does.
  const calm = { schedule: schedules.constant(0.01, { warmup: 3 }), microBatches: 1 };
  const long = { ...calm, steps: 16, evaluateEvery: 16, checkpointEvery: 16, sampleEvery: 16 };

  it("follows the curve of f32 within 1%", async () => {
    const full = losses(await run(undefined, long));
    expect(full[15]).toBeLessThan(0.95 * full[0]);
    for (const compute of ["bf16", "f16"] as const) {
      for (const [i, loss] of losses(await run(compute, long)).entries()) {
        expect(Math.abs(loss / full[i] - 1), `${compute}, step ${i + 1}`).toBeLessThan(0.01);
      }
    }
  });

  it("saves f32 masters and moments, which change by less than bf16 can tell", async () => {
    const { files, content } = await run("bf16");
    for (const name of ["model.safetensors", "training/optimizer.safetensors"]) {
      const file = await SafetensorsFile.open(files, `${content.checkpoint}/${name}`);
      expect(new Set(file.names.map((tensor) => file.describe(tensor).dtype))).toEqual(new Set(["f32"]));
      await file.close();
    }
    const file = await SafetensorsFile.open(files, `${content.checkpoint}/model.safetensors`);
    const { data } = await file.read("backbone.embeddings.weight");
    await file.close();
    const bits = new Uint32Array((data as Float32Array).buffer, data.byteOffset, data.length);
    expect(bits.some((word) => (word & 0xffff) !== 0)).toBe(true);
  });

  it.each(["bf16", "f16"] as const)("in %s a run that was stopped goes on to the same bits", async (compute) => {
    const whole = (await run(compute)).content;
    const files = memoryFiles();
    const stop = new AbortController();
    const onEvent = (event: TrainEvent) => void (event.type === "step" && event.step === 3 && stop.abort());
    await run(compute, { onEvent }, files, stop.signal);
    expect((await run(compute, {}, files)).content).toEqual(whole);
  });

  it("is part of what a run is: it does not go on in another", async () => {
    const files = memoryFiles();
    await run("bf16", { steps: 2 }, files);
    expect((await errorOf(run(undefined, {}, files))).message).toContain("compute was");
  });

  it("brings a loss scale that overflows down, a halving a step, and saves it", async () => {
    const { content, events } = await run("f16", { steps: 14, lossScale: { initial: 2 ** 24, growthInterval: 3 } });
    const skipped = events.filter((event) => event.type === "warning");
    expect(skipped.length).toBeGreaterThan(1);
    expect(skipped.every(({ message }) => message.includes("the scale of the loss was halved"))).toBe(true);
    const norms = content.metrics.map(({ norm }) => norm);
    expect(norms.filter((norm) => norm === null).length).toBe(skipped.length);
    const { lossScale } = content.state as { lossScale: { scale: number; steps: number } };
    expect(Math.log2(lossScale.scale) % 1).toBe(0);
    expect(lossScale.scale).toBeLessThan(2 ** 24);
    expect(lossScale.steps).toBeLessThan(3);
  });
});
