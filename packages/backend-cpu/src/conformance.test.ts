// The conformance suite and the goldens on the CPU backend, with 1, 2 and 3 threads, and the same bits with each.

import { describeConformance, goldenTests } from "@diffmamba/conformance";
import { afterAll, describe, expect, it } from "vitest";
import { readGoldens } from "./goldens.testing.js";
import { cpu, cpuAvailability } from "./index.js";
import { Training } from "./training.testing.js";

const availability = cpuAvailability();
const threadCounts = [1, 2, 3];

if (!availability.available) {
  describe.skipIf(true)(`the CPU backend: ${availability.reason}`, () =>
    it("passes the conformance suite", () => undefined),
  );
} else {
  const goldens = await readGoldens();
  for (const threads of threadCounts) {
    const title = `cpu (${availability.device}), ${threads} ${threads === 1 ? "thread" : "threads"}`;
    describeConformance({ describe, it, afterAll }, title, await cpu({ threads }));
    const device = await cpu({ threads });
    describe(`the goldens on ${title}`, () => {
      afterAll(() => device.dispose());
      for (const test of goldenTests(goldens, ["f32"])) {
        it(test.name, async () => {
          const before = device.memory().tensors;
          await test.run(device);
          expect(device.memory().tensors - before, "tensors left behind").toBe(0);
        });
      }
    });
  }

  it("three training steps have the same bits with 1, 2 and 3 threads", async () => {
    const results = await Promise.all(threadCounts.map(train));
    expect(results[0].get("loss 2")?.[0]).toBeLessThan(results[0].get("loss 0")?.[0] ?? 0);
    for (const [i, result] of results.entries()) {
      for (const [name, values] of result) {
        expect(values.every(Number.isFinite), `${name}: finite`).toBe(true);
        const first = results[0].get(name) ?? new Float32Array();
        expect(Buffer.from(values.buffer).equals(Buffer.from(first.buffer)), `${name}, ${i + 1} threads`).toBe(true);
      }
    }
  });
}

/** Losses, norms, parameters and moments of three steps. */
async function train(threads: number): Promise<Map<string, Float32Array>> {
  const device = await cpu({ threads });
  try {
    const training = new Training(device);
    const results = new Map<string, Float32Array>();
    for (let i = 0; i < 3; i++) {
      const [loss, norm] = training.step();
      results.set(`loss ${i}`, Float32Array.of(await loss.item()));
      results.set(`norm ${i}`, Float32Array.of(await norm.item()));
      loss.dispose();
      norm.dispose();
    }
    for (const [name, values] of await training.state()) results.set(name, Float32Array.from(values));
    return results;
  } finally {
    await device.dispose();
  }
}
