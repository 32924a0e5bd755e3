// The conformance suite and the goldens on the CPU backend's WebAssembly build, with plain SIMD on one thread and with
// relaxed SIMD on two; and the same bits from a module for several threads as from the one for a single thread.

import { describeConformance, goldenTests } from "@diffmamba/conformance";
import { afterAll, describe, expect, it } from "vitest";
import { readGoldens } from "../goldens.testing.js";
import { Training } from "../training.testing.js";
import { type WasmFile, wasmCpu } from "./index.js";
import { allowRelaxedSimd, bundleWorker, bytesOf, reasonToSkip } from "./wasm.testing.js";

const reason = reasonToSkip();
allowRelaxedSimd();

if (reason !== undefined) {
  describe.skipIf(true)(`the CPU backend's WebAssembly build: ${reason}`, () =>
    it("passes the conformance suite", () => undefined),
  );
} else {
  const goldens = await readGoldens();
  const worker = await bundleWorker();
  afterAll(worker.remove);
  const open = (file: WasmFile, threads: number) => wasmCpu({ bytes: bytesOf(file), threads, workerUrl: worker.url });

  const suites = [
    ["kernels-simd.wasm", 1],
    ["kernels-relaxed-threads.wasm", 2],
  ] as const;
  for (const [file, threads] of suites) {
    const suite = await open(file, threads);
    const title = `${file}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
    describeConformance({ describe, it, afterAll }, title, suite);
    const device = await open(file, threads);
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

  const siblings = [
    ["kernels-simd.wasm", "kernels-simd-threads.wasm"],
    ["kernels-relaxed.wasm", "kernels-relaxed-threads.wasm"],
  ] as const;
  it.each(siblings)(
    "three training steps have the same bits with %s as with %s on 1, 2 and 3 threads",
    async (single, shared) => {
      const devices = [open(single, 1), ...[1, 2, 3].map((threads) => open(shared, threads))];
      const results = await Promise.all(devices.map(async (device) => train(await device)));
      expect(results[0].losses[2]).toBeLessThan(results[0].losses[0]);
      for (const { losses, state } of results) {
        expect(losses).toEqual(results[0].losses);
        for (const [name, values] of state) {
          expect(values.every(Number.isFinite), `${name}: finite`).toBe(true);
          const first = results[0].state.get(name) ?? new Float32Array();
          expect(Buffer.from(values.buffer).equals(Buffer.from(first.buffer)), name).toBe(true);
        }
      }
    },
  );
}

/** The losses of three steps, and the parameters and moments after them. */
async function train(device: Awaited<ReturnType<typeof wasmCpu>>) {
  try {
    const training = new Training(device);
    const losses: number[] = [];
    for (let i = 0; i < 3; i++) {
      const [loss, norm] = training.step();
      losses.push(await loss.item());
      loss.dispose();
      norm.dispose();
    }
    const state = [...(await training.state())].map(([name, values]) => [name, Float32Array.from(values)] as const);
    return { losses, state: new Map(state) };
  } finally {
    await device.dispose();
  }
}
