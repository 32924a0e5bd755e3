// The conformance suite and the goldens on a GPU, and what only a device shows: recordings, the same bits twice, memory that runs out.
// Skipped by name where there is none.

import { describeConformance, goldenTests } from "@diffmamba/conformance";
import { BackendError, Device, type DType, type Tensor } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { readGoldens } from "./goldens.testing.js";
import { cuda, cudaAvailability } from "./index.js";

const availability = cudaAvailability();

if (!availability.available) {
  describe.skipIf(true)(`the CUDA backend: ${availability.reason}`, () =>
    it("passes the conformance suite", () => undefined),
  );
} else {
  const title = `cuda (${availability.devices[0].name})`;
  describeConformance({ describe, it, afterAll }, title, await cuda());
  const ownProducts: readonly DType[] = ["f32", "bf16", "f16"];
  describeConformance({ describe, it, afterAll }, `${title}, own matrix products`, await cuda({ blas: false }), {
    dtypes: ownProducts,
    filter: ({ op }) => op === "matmul" || op === "linear",
  });

  const goldens = await readGoldens();
  const device = await cuda();
  afterAll(() => device.dispose());

  describe(`the goldens on ${title}`, () => {
    for (const test of goldenTests(goldens, ["f32", "bf16", "f16"])) {
      it(test.name, async () => {
        const before = device.memory().tensors;
        await test.run(device);
        expect(device.memory().tensors - before, "tensors left behind").toBe(0);
      });
    }
  });

  describe(`recordings on ${title}`, () => {
    it("give the same bits as the calls, with what the inputs hold by then", async () => {
      const { backend } = device;
      if (!(device instanceof Device) || backend.record === undefined) throw new Error("there are no recordings");
      using x = device.ones([3, 64], "bf16");
      using weight = device.full([32, 64], 0.5, "bf16");
      let y: Tensor | undefined;
      const recording = backend.record(() => {
        using product = x.matmul(weight.transpose());
        using more = product.add(1);
        y = more.silu();
      });
      using out = y as unknown as Tensor;
      for (const value of [1, -0.25, 3]) {
        x.fillInPlace(value);
        recording.replay();
        using expected = x.matmul(weight.transpose()).add(1).silu();
        expect(await out.data()).toEqual(await expected.data());
      }
      recording.dispose();
      expect(() => recording.replay()).toThrow("cuda: the recording was disposed.");
    });

    it("refuse what waits or writes, and the device works afterwards", async () => {
      using x = device.ones([4]);
      const { backend } = device;
      expect(() => backend.record?.(() => void device.tensor([1, 2]).dispose())).toThrow(
        /cannot be part of a recording/,
      );
      expect(await x.data()).toEqual(Float32Array.of(1, 1, 1, 1));
    });
  });

  it("says what could not be had when memory runs out, and gives back what it keeps", async () => {
    const bytes = availability.devices[0].memoryBytes;
    const before = device.backend.heldBytes();
    expect(() => device.empty([2 * bytes], "u8")).toThrow(BackendError);
    expect(() => device.empty([2 * bytes], "u8")).toThrow(
      /u8: out of memory: [\d,]+ bytes could not be had on the device/,
    );
    expect(device.backend.heldBytes()).toBeLessThanOrEqual(before);
    using x = device.ones([1000]);
    expect((await x.data()).every((value) => value === 1)).toBe(true);
  });
}
