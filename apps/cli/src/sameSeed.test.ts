// Layer: apps/cli, tests. One seed on every backend: the same losses, step by step, within what rounding makes of them.

import process from "node:process";
import { webgpuAvailability } from "@diffmamba/backend-webgpu/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { smallest, someText, type Workplace, workplace } from "./command.testing.js";

const STEPS = 50;
const availability = await webgpuAvailability();

/** Why WebGPU is left out here. A driver on the processor takes minutes, most of them to compile shaders. */
function reasonToSkip(): string | undefined {
  if (!availability.available) return availability.reason;
  if (process.env.DIFFMAMBA_SLOW || !/swiftshader|llvmpipe/i.test(availability.device)) return undefined;
  return `${availability.device} takes minutes; DIFFMAMBA_SLOW=1 runs it`;
}
const skipped = reasonToSkip();

let place: Workplace;
const losses = new Map<string, number[]>();

beforeAll(() => {
  place = workplace();
  place.write("text.txt", someText(6000));
});
afterAll(() => place.dispose());

/** The losses of all steps, by the metrics that the run wrote. */
async function train(backend: string): Promise<number[]> {
  const flags = ["--data", "text.txt", "--out", backend, "--seed", "3", "--steps", String(STEPS), "--backend", backend];
  await place.json(["train", ...smallest, ...flags, "--set", "evalEvery=0", "--set", `saveEvery=${STEPS}`]);
  const lines = place.read(`${backend}/metrics.jsonl`).toString().trim().split("\n");
  const steps = lines.map((line) => JSON.parse(line) as { loss?: number; norm?: number });
  return steps.flatMap(({ loss, norm }) => (loss !== undefined && norm !== undefined ? [loss] : []));
}

describe("one seed, 50 steps of the preset tiny at its own learning rate", () => {
  beforeAll(async () => void losses.set("reference", await train("reference")), 240_000);

  const agrees = async (backend: string) => {
    const expected = losses.get("reference") ?? [];
    const found = await train(backend);
    expect(found).toHaveLength(STEPS);
    expect(expected).toHaveLength(STEPS);
    for (const [i, loss] of found.entries()) {
      expect(Math.abs(loss / expected[i] - 1), `step ${i + 1}`).toBeLessThan(1e-3);
    }
    expect(found[STEPS - 1]).toBeLessThan(found[0] - 0.5);
  };

  it("cpu has the losses of the reference", () => agrees("cpu"), 240_000);
  it.skipIf(skipped !== undefined)(
    `webgpu has the losses of the reference${skipped === undefined ? "" : `: ${skipped}`}`,
    () => agrees("webgpu"),
    600_000,
  );
});
