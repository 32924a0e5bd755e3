// The backend over a native side that only counts: a recording that cannot begin leaves nothing behind.

import { expect, it } from "vitest";
import type { Addon } from "./addon.js";
import { CudaBackend } from "./backend.js";
import { hopper } from "./device.testing.js";

it("ends a recording for which there is no memory, and makes the next", () => {
  const calls: string[] = [];
  let [next, isFull] = [2 ** 40, true];
  const addon = {
    open: () => 1,
    allocate: (_: number, bytes: number) => {
      next += bytes;
      return isFull ? 0 : next;
    },
    release: () => calls.push("release"),
    beginCapture: () => calls.push("begin"),
    endCapture: () => {
      calls.push("end");
      return { graph: 7, nodes: 0 };
    },
    destroyGraph: () => calls.push("destroy"),
    replay: () => calls.push("replay"),
  };
  const options = { index: 0, tf32: false, holdOutputs: true, reuse: true, blas: true, fuses: true };
  const backend = new CudaBackend(addon as unknown as Addon, new Uint8Array(0), hopper, options);
  expect(() => backend.record(() => calls.push("run"))).toThrow("out of memory");
  expect(calls).toEqual(["begin", "end", "destroy"]);
  expect(backend.recording).toBe(false);
  isFull = false;
  const recording = backend.record(() => expect(backend.recording).toBe(true));
  recording.replay();
  recording.dispose();
  expect(calls.slice(3)).toEqual(["begin", "end", "replay", "destroy", "release"]);
});
