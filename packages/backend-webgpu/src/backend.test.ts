// The backend around its kernels: the order of host and device, memory over many steps, recordings, sizes beyond the device's limits,
// and errors that come late.

import * as tensorOps from "@diffmamba/tensor";
import { BackendError, Device, LifetimeError, scope, type Tensor } from "@diffmamba/tensor";
import { expect, it, vi } from "vitest";
import { openBackend } from "./adapter.js";
import { WebGpuBackend } from "./backend.js";
import { describeWithDevice } from "./kernels/device.testing.js";
import { webgpu } from "./node.js";

const backendOf = (device: Device) => device.backend as WebGpuBackend;

async function values(x: Tensor): Promise<number[]> {
  return Array.from(await x.data());
}

function write(x: Tensor, numbers: readonly number[]): void {
  const { buffer } = x.view();
  x.device.backend.write(buffer, 0, new Uint8Array(Float32Array.from(numbers).buffer));
}

/** Another device on the same adapter. */
async function another(bindingBytes?: number): Promise<{ device: Device; gpu: GPUDevice }> {
  // The object of create() is one a process.
  const kept = Symbol.for("@diffmamba/backend-webgpu: the object of create()");
  const entry = (globalThis as unknown as { [kept]: GPU })[kept];
  const adapter = (await entry.requestAdapter()) as GPUAdapter;
  const gpu = await adapter.requestDevice();
  const backend = new WebGpuBackend(gpu, {
    ...{ name: "another", subgroups: undefined, fallback: true },
    ...(bindingBytes !== undefined && { bindingBytes }),
  });
  return { device: new Device(backend), gpu };
}

describeWithDevice("the WebGPU backend", (device) => {
  it("orders host writes, kernels and reads, with shaders that are still being compiled", async () => {
    // A device without a single pipeline.
    await using cold = await webgpu();
    using x = cold.from([1, 2, 3], [3]);
    using doubled = x.mul(2);
    const first = values(doubled);
    write(x, [4, 5, 6]);
    using negated = x.neg();
    const second = values(negated);
    write(x, [7, 8, 9]);
    doubled.fillInPlace(0);
    expect(await first).toEqual([2, 4, 6]);
    expect(await second).toEqual([-4, -5, -6]);
    expect(await values(x)).toEqual([7, 8, 9]);
    expect(await values(doubled)).toEqual([0, 0, 0]);
  });

  it("reads many tensors at once, and parts of them", async () => {
    const tensors = Array.from({ length: 20 }, (_, i) => device().full([7], i));
    const all = await Promise.all(tensors.map(values));
    expect(all).toEqual(tensors.map((_, i) => new Array(7).fill(i)));
    for (const tensor of tensors) tensor.dispose();
    using bytes = device().from(
      Uint8Array.from({ length: 11 }, (_, i) => i),
      [11],
      "u8",
    );
    const { buffer } = bytes.view();
    expect(Array.from(await device().backend.read(buffer, 3, 5))).toEqual([3, 4, 5, 6, 7]);
    expect((await device().backend.read(buffer, 3, 0)).length).toBe(0);
    await expect(device().backend.read(buffer, 8, 4)).rejects.toThrow(/bytes 8 to 12 are outside a buffer of 11/);
  });

  it("writes parts that are no whole words, and leaves their neighbours", async () => {
    using bytes = device().from(new Uint8Array(13), [13], "u8");
    const { buffer } = bytes.view();
    device().backend.write(buffer, 3, Uint8Array.of(1, 2, 3, 4, 5));
    device().backend.write(buffer, 12, Uint8Array.of(9));
    expect(await values(bytes)).toEqual([0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 9]);
  });

  it("holds no more memory from step to step, and counts what it holds", async () => {
    const step = async () => {
      using sum = scope(() => {
        const x = device().ones([64, 33]);
        return x.mul(3).add(x.sum(0)).sum();
      });
      return sum.item();
    };
    const first = await step();
    await step();
    const before = device().backend.heldBytes();
    for (let i = 0; i < 100; i++) expect(await step()).toBe(first);
    expect(device().backend.heldBytes()).toBe(before);
    expect(before).toBeGreaterThan(64 * 33 * 4);
  });

  it("replays what was recorded over what its inputs hold then", async () => {
    const backend = backendOf(device());
    using x = device().from([1, 2, 3], [3]);
    let result: Tensor | undefined;
    const recording = backend.record(() => {
      expect(backend.recording).toBe(true);
      result = scope(() => x.mul(2).add(1).mul(x));
    });
    using out = result as Tensor;
    expect(backend.recording).toBe(false);
    recording.replay();
    expect(await values(out)).toEqual([3, 10, 21]);
    // What is done outside does not touch the memory that the recording holds still.
    for (let i = 0; i < 5; i++) {
      using other = device().full([3], 100);
      using more = other.mul(7);
      await values(more);
    }
    write(x, [2, 3, 4]);
    recording.replay();
    write(x, [-1, 0, 1]);
    const before = values(out);
    recording.replay();
    expect(await before).toEqual([10, 21, 36]);
    expect(await values(out)).toEqual([1, 0, 3]);
    recording.dispose();
    recording.dispose();
    expect(() => recording.replay()).toThrow(LifetimeError);
  });

  it("refuses host writes, reads and recordings inside a recording", async () => {
    const backend = backendOf(device());
    using x = device().ones([3]);
    expect(() => backend.record(() => write(x, [1, 2, 3]))).toThrow(/a host write inside a recording/);
    expect(() => backend.record(() => backend.record(() => undefined))).toThrow(/a recording inside a recording/);
    let read: Promise<unknown> | undefined;
    backend
      .record(() => {
        read = backend.read(x.view().buffer, 0, 4);
        read.catch(() => undefined);
      })
      .dispose();
    await expect(read).rejects.toThrow(/a read inside a recording/);
    expect(backend.recording).toBe(false);
    expect(await values(x)).toEqual([1, 1, 1]);
  });

  it("splits elementwise work on tensors that no dispatch can see whole, and names those that it refuses", async () => {
    const { device: small } = await another(2 ** 20);
    await using _small = small;
    const rows = 300;
    using floats = small.from(
      Float32Array.from({ length: rows * 1024 }, (_, i) => i),
      [rows * 1024],
    );
    using table = floats.reshape(rows, 1024);
    using shifted = table.add(0.5);
    using flags = table.less(3.5);
    using last = shifted.slice(0, rows - 2, rows);
    using sum = last.sum(1);
    const from = (rows - 2) * 1024;
    expect(await values(sum)).toEqual([0, 1].map((row) => 1024 * (from + row * 1024 + 511.5 + 0.5)));
    using counted = flags.cast("i32");
    using few = counted.slice(0, 0, 2);
    using total = few.sum();
    expect(await total.item()).toBe(4);
    expect(() => shifted.sum()).toThrow(BackendError);
    expect(() => shifted.sum()).toThrow(
      /webgpu: reduce: x, \(300, 1024\) f32, spans \d+ bytes; this device lets a kernel see 1048576 bytes of a buffer/,
    );
    expect(() => small.empty([2 ** 40])).toThrow(/more than this device's largest buffer/);

    // Routines and products name themselves and what is too large, and nothing is wrong with the device afterwards.
    using weight = small.ones([1024]);
    using targets = small.zeros([rows], "i32");
    const refused = (op: string, name: string) =>
      new RegExp(`webgpu: ${op}: ${name}, .*spans \\d+ bytes; .*Split the tensor`);
    const { rmsNorm: norm, addRmsNorm: addNorm, layerNorm: layer, softmaxCrossEntropy: loss } = tensorOps;
    expect(() => norm(shifted, weight)).toThrow(refused("rmsNorm", "x"));
    expect(() => addNorm(shifted, shifted, weight, { eps: 1e-5 })).toThrow(refused("addRmsNorm", "x"));
    expect(() => layer(shifted, weight)).toThrow(refused("layerNorm", "x"));
    expect(() => loss(shifted, targets)).toThrow(refused("softmaxCrossEntropy", "logits"));
    expect(() => shifted.matmul(weight.reshape(1024, 1))).toThrow(refused("matmul", "wide"));
    expect(() => tensorOps.causalConv1d(shifted.reshape(1, rows, 1024), small.ones([1024, 4]))).toThrow(
      refused("causalConv1d", "x"),
    );
    using fine = norm(table.slice(0, 0, 2), weight);
    expect((await values(fine))[0]).toBe(0);
  });

  it("finds what dispatches bind, and forgets it when there is too much, between dispatches of a batch", async () => {
    // More than are kept, each with uniforms of its own.
    const count = (1 << 14) + 300;
    using x = device().zeros([count]);
    const view = x.view();
    const { kernels } = device().backend;
    const fill = (i: number) => kernels.fill({ ...view, shape: [1], strides: [1], offset: i }, i);
    // One of them many times, so that batches do not end where what they bind is forgotten.
    for (let i = 0; i < 100; i++) fill(0);
    for (let i = 0; i < count; i++) fill(i);
    const wrong = (await values(x)).findIndex((value, i) => value !== i);
    expect(wrong).toBe(-1);
  });

  it("binds no more from step to step where numbers change, and mixes up none of them", async () => {
    const backend = backendOf(device());
    using rate = device().zeros([]);
    using seen = device().zeros([400]);
    const made = vi.spyOn(backend.gpu, "createBindGroup");
    const step = async (i: number) => {
      rate.fillInPlace(i);
      using place = seen.slice(0, i, i + 1);
      // Several to a batch, so that one is not given the numbers of another that waits beside it.
      backend.kernels.copy(rate.reshape(1).view(), place.view());
      if (i % 3 === 0) await rate.item();
    };
    for (let i = 0; i < 300; i++) await step(i);
    const before = made.mock.calls.length;
    for (let i = 300; i < 400; i++) await step(i);
    expect(made.mock.calls.length).toBe(before);
    made.mockRestore();
    expect(await values(seen)).toEqual(Array.from({ length: 400 }, (_, i) => i));
  });

  it("a lack of memory is an error with the kernel that was called last and what is held, now and from then on", async () => {
    const { device: full, gpu } = await another();
    const x = full.ones([1024]);
    expect(await values(x)).toHaveLength(1024);
    // As a driver reports it: the buffer is there, and not valid, and the error comes later.
    const original = gpu.popErrorScope.bind(gpu);
    const scopes = vi.spyOn(gpu, "popErrorScope");
    scopes.mockImplementationOnce(async () => {
      await original();
      return { message: "VK_ERROR_OUT_OF_DEVICE_MEMORY" } as GPUOutOfMemoryError;
    });
    const y = x.exp();
    await expect(values(y)).rejects.toThrow(
      /webgpu: .*out of memory: no buffer of 4096 bytes beside the \d+ that are held: VK_ERROR_OUT_OF_DEVICE_MEMORY/,
    );
    await expect(values(y)).rejects.toThrow(BackendError);
    expect(() => y.neg()).toThrow(/out of memory/);
    await expect(full.synchronize()).rejects.toThrow(/out of memory/);
    await full.dispose();
  });

  it("a lost device is an error with the kernel that was called last, now and from then on", async () => {
    const { device: lost, gpu } = await another();
    const x = lost.ones([3]);
    const y = x.exp();
    expect(await values(y)).toHaveLength(3);
    const z = y.sqrt();
    gpu.destroy();
    await expect(values(z)).rejects.toThrow(BackendError);
    await expect(values(z)).rejects.toThrow(/webgpu: unary or before: the device was lost/);
    expect(() => z.neg()).toThrow(/the device was lost/);
    await expect(lost.synchronize()).rejects.toThrow(/the device was lost/);
    await lost.dispose();
  });

  it("a shader that does not compile is an error with its name and the compiler's words", async () => {
    const { device: broken } = await another();
    await using _broken = broken;
    const x = broken.ones([3]);
    backendOf(broken).context.run({
      shader: { name: "no-shader", text: "@compute @workgroup_size(1)\nfn main() { $x[0] = nonsense; }" },
      buffers: { x: x.view() },
      writes: ["x"],
      groups: 1,
    });
    await expect(values(x)).rejects.toThrow(/the shader no-shader did not compile: .*nonsense/s);
  });

  it("binds a buffer once that is read and written, and names two ways of seeing it", () => {
    const { context } = backendOf(device());
    using x = device().zeros([8]);
    const view = x.view();
    const dispatch = { shader: "iota", writes: ["out"], uniforms: { items: 1 }, groups: 1 } as const;
    expect(() => context.run({ ...dispatch, buffers: { out: view, x: { view, vec: 4 } } })).toThrow(
      /out \(f32\) and x \(vec4<f32>\) share a buffer, one of them is written/,
    );
  });

  it("refuses views of another backend's memory, and work after it was disposed of", async () => {
    const other = await webgpu();
    using x = device().ones([2]);
    const { buffer } = x.view();
    expect(() => other.backend.write({ bytes: 8 }, 0, new Uint8Array(8))).toThrow(/another backend's memory/);
    await other.dispose();
    expect(() => other.backend.allocate(4)).toThrow(LifetimeError);
    expect(buffer.bytes).toBe(8);
  });

  it("gives no backend where there is no adapter", async () => {
    const none = { requestAdapter: async () => null } as unknown as GPU;
    expect(await openBackend(none)).toBeUndefined();
    await expect(webgpu({ gpu: none })).rejects.toThrow(/webgpu: .*adapter|driver/);
  });
});
