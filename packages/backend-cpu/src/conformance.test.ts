// The conformance suite and the goldens on the CPU backend, with 1, 2 and 3 threads, and the same bits with each.

import { readdir, readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { describeConformance, goldenTests, openGoldens } from "@diffmamba/conformance";
import { afterAll, describe, expect, it } from "vitest";
import { cpu, cpuAvailability } from "./index.js";
import { Training } from "./training.testing.js";

const availability = cpuAvailability();
const threadCounts = [1, 2, 3];

/** What is read of a folder of goldens. */
const files = {
  stat: async (name: string) => {
    const found = await stat(name).catch(() => undefined);
    return found && ({ kind: found.isDirectory() ? "directory" : "file", size: found.size } as const);
  },
  read: async (name: string) => new Uint8Array(await readFile(name)),
  readRange: async (name: string, offset: number, size: number) =>
    new Uint8Array((await readFile(name)).subarray(offset, offset + size)),
  list: async (name: string) => {
    const entries = await readdir(name, { withFileTypes: true });
    const kinds = entries.map((entry) => ({
      name: entry.name,
      kind: entry.isDirectory() ? ("directory" as const) : ("file" as const),
    }));
    return kinds.sort((a, b) => (a.name < b.name ? -1 : 1));
  },
};

if (!availability.available) {
  describe.skipIf(true)(`the CPU backend: ${availability.reason}`, () =>
    it("passes the conformance suite", () => undefined),
  );
} else {
  const conformance = path.dirname(createRequire(import.meta.url).resolve("@diffmamba/conformance/package.json"));
  const folder = path.join(conformance, "fixtures", "goldens");
  const goldens = await openGoldens(files as Parameters<typeof openGoldens>[0], folder);
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
