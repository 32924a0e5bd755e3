// Layer: tensor, tests. What is recorded and replayed gives the bits of what is computed at once; its memory stays where it is; what
// cannot be recorded says so.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  BackendError,
  type Device,
  keep,
  LifetimeError,
  noGrad,
  reference,
  scope,
  type Tensor,
  valueAndGrad,
} from "./index.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const numbers = (size: number, seed: number) => Array.from({ length: size }, (_, i) => Math.sin(seed + 1.7 * i));
const tensor = (shape: readonly number[], seed: number): Tensor =>
  device.from(
    numbers(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  );
const list = async (x: Tensor) => Array.from(await x.data());

/** A step of gradient descent on |tanh(x w)|^2, in place; gives the loss. */
function step(x: Tensor, w: Tensor): Tensor {
  const { value, gradients } = valueAndGrad(() => x.matmul(w).tanh().square().sum(), [w]);
  noGrad(() => w.addInPlace(gradients[0].mul(-0.1)));
  return value;
}

describe("a recording", () => {
  it("replays a step with gradients to the same bits, with inputs that are written between", async () => {
    const run = async (recorded: boolean) => {
      const x = tensor([3, 4], 1);
      const w = tensor([4, 2], 2);
      const recording = recorded ? device.record(() => step(x, w)) : undefined;
      const losses: number[] = [];
      for (let i = 0; i < 4; i++) {
        x.write(Float32Array.from(numbers(12, 10 + i)));
        using loss = recording === undefined ? scope(() => step(x, w)) : undefined;
        recording?.replay();
        losses.push(...(await list(loss ?? (recording?.result as Tensor))));
      }
      recording?.dispose();
      return { losses, w: await list(w) };
    };
    const plain = await run(false);
    expect(await run(true)).toEqual(plain);
    expect(new Set(plain.losses).size).toBe(4);
  });

  it("computes nothing by itself, and leaves no tensor and no memory behind", async () => {
    const x = tensor([5], 1);
    const before = device.memory();
    const target = keep(device.zeros([5]));
    const recording = device.record(() => {
      const y = x.exp().mul(2);
      target.assign(y);
      return { y: y.add(1), none: undefined };
    });
    expect(await list(target)).toEqual([0, 0, 0, 0, 0]);
    recording.replay();
    const expected = Array.from(Float32Array.from(await list(x.exp().mul(2))));
    expect(await list(target)).toEqual(expected);
    recording.dispose();
    expect(() => recording.replay()).toThrow(LifetimeError);
    expect(() => recording.result.y.view()).toThrow(LifetimeError);
    target.dispose();
    expect(device.memory().buffers).toBeLessThanOrEqual(before.buffers + 2);
  });

  it("holds the memory that it uses: it is not freed under it, and not exchanged", async () => {
    const x = tensor([2], 1);
    const state = tensor([2], 2);
    const first = await list(x);
    const recording = device.record(() => {
      state.take(x.add(state));
      return x.add(1);
    });
    x.dispose();
    // Whoever asks for memory now must not be given that of x.
    const other = device.full([2], 99);
    recording.replay();
    expect(await list(recording.result)).toEqual(Array.from(Float32Array.from(first, (n) => Math.fround(n + 1))));
    const place = state.storage.buffer;
    state.take(device.full([2], 5));
    expect(state.storage.buffer).toBe(place);
    expect(await list(state)).toEqual([5, 5]);
    recording.replay();
    expect(await list(state)).toEqual(first.map((n) => Math.fround(n + 5)));
    recording.dispose();
    state.take(device.full([2], 7));
    expect(state.storage.buffer).not.toBe(place);
    other.dispose();
  });

  it("takes versions on with each replay, so that what was saved before is known to be old", () => {
    const w = tensor([3], 1);
    const recording = device.record(() => void w.addInPlace(w.square()));
    expect(() =>
      valueAndGrad(() => {
        const y = w.square();
        recording.replay();
        return y.sum();
      }, [w]),
    ).toThrow("was changed in place");
    recording.dispose();
  });

  it("refuses the host, and itself, by name; the device works on", async () => {
    const x = tensor([2], 1);
    const attempts: [() => void, string][] = [
      [() => void x.write(new Float32Array(2)), "a tensor was written from the host while kernel calls are recorded"],
      [() => void device.record(() => undefined), "a recording was begun while"],
    ];
    for (const [attempt, message] of attempts) {
      expect(() => device.record(attempt)).toThrow(message);
      expect(() => device.record(attempt)).toThrow(BackendError);
    }
    let reading: Promise<unknown> | undefined;
    device.record(() => {
      reading = x.data();
      reading.catch(() => undefined);
    });
    await expect(reading).rejects.toThrow("a tensor was read while kernel calls are recorded");
    expect((await list(x)).length).toBe(2);
  });
});
