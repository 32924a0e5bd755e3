// The WebAssembly entry: what it chooses, what it refuses and how it says so, memory that grows and that comes to its end.

import { BackendError } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { chooseFile, hasRelaxedSimd } from "./features.js";
import { type WasmFile, wasmAvailability, wasmCpu } from "./index.js";
import { allowRelaxedSimd, bundleWorker, bytesOf, reasonToSkip } from "./wasm.testing.js";

const reason = reasonToSkip();
allowRelaxedSimd();

const files: readonly WasmFile[] = [
  "kernels-simd.wasm",
  "kernels-simd-threads.wasm",
  "kernels-relaxed.wasm",
  "kernels-relaxed-threads.wasm",
];

describe("what is chosen", () => {
  it("follows what the engine takes and the threads that are wanted", () => {
    expect(hasRelaxedSimd()).toBe(true);
    expect(chooseFile(1)).toBe("kernels-relaxed.wasm");
    expect(chooseFile(4)).toBe("kernels-relaxed-threads.wasm");
    expect(wasmAvailability({ threads: 1 })).toEqual({
      available: true,
      device: "WASM, relaxed SIMD, 1 thread",
      threads: 1,
      file: "kernels-relaxed.wasm",
    });
  });
});

describe.skipIf(reason !== undefined)(`the WebAssembly build${reason === undefined ? "" : `: ${reason}`}`, () => {
  const worker = reason === undefined ? bundleWorker() : undefined;
  afterAll(async () => (await worker)?.remove());
  const open = async (file: WasmFile, options: { threads?: number; memoryLimit?: number } = {}) =>
    wasmCpu({ bytes: bytesOf(file), workerUrl: (await worker)?.url ?? "", ...options });

  it.each(files)("multiplies matrices of every size with %s, also where their memory has to grow", async (file) => {
    await using device = await open(file, { threads: 2 });
    const threads = file.includes("threads") ? 2 : 1;
    expect(device.backend.device).toBe(
      `WASM, ${file.includes("relaxed") ? "relaxed SIMD" : "SIMD"}, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    );
    for (const size of [1, 7, 128, 300, 700]) {
      using left = device.ones([size, size]);
      using right = device.ones([size, size]);
      using product = left.matmul(right);
      expect((await product.data()).every((value) => value === size)).toBe(true);
    }
  });

  it("finds its own file where none is given", async () => {
    await using device = await wasmCpu({ threads: 1 });
    using two = device.ones([3]).add(device.ones([3]));
    expect([...(await two.data())]).toEqual([2, 2, 2]);
  });

  it("refuses threads and limits that are none", async () => {
    for (const threads of [0, 1.5, 2000]) {
      await expect(wasmCpu({ threads })).rejects.toThrow(
        `cpu: ${threads} threads; it must be a whole number from 1 to 1024.`,
      );
    }
    await expect(wasmCpu({ memoryLimit: -1 })).rejects.toThrow(
      "cpu: a memoryLimit of -1; it must be a number of bytes.",
    );
  });

  it("says which file could not be loaded, or is none, or cannot have its workers", async () => {
    const url = new URL("nowhere.wasm", import.meta.url);
    await expect(wasmCpu({ url, threads: 1 })).rejects.toThrow(`cpu: ${url.href} could not be loaded`);
    const bytes = new Uint8Array([1, 2, 3]);
    await expect(wasmCpu({ bytes })).rejects.toThrow(
      "cpu: what was given as bytes is no module that this engine takes",
    );
    const workerUrl = new URL("nowhere.js", import.meta.url);
    const noWorker = wasmCpu({ bytes: bytesOf("kernels-simd-threads.wasm"), threads: 2, workerUrl });
    await expect(noWorker).rejects.toThrow(/cpu: a worker of 1 could not be started \(.*\); ask for one thread\./);
  });

  it("ends at its limit and at 4 GiB with an error, and goes on afterwards", async () => {
    await using limited = await open("kernels-simd.wasm", { memoryLimit: 1000 });
    expect(() => limited.zeros([1000])).toThrow(BackendError);
    await using device = await open("kernels-simd.wasm");
    expect(() => device.empty([2 ** 30])).toThrow(BackendError);
    using one = device.ones([5]);
    expect([...(await one.data())]).toEqual([1, 1, 1, 1, 1]);
  });

  it("gives memory back: many tensors of changing sizes take no more than a few", async () => {
    await using device = await open("kernels-simd.wasm", { memoryLimit: 64e6 });
    for (let i = 0; i < 400; i++) {
      using tensor = device.ones([1 + ((i * 7919) % 1_000_003)]);
      if (i % 100 === 0) expect((await tensor.data()).at(-1)).toBe(1);
    }
    expect(device.memory().tensors).toBe(0);
  });
});
