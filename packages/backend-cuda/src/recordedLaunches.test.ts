// Launches of a recording, without a device: what is held back goes out before what follows it, and what was named is touched.

import type { View } from "@diffmamba/tensor";
import { expect, it } from "vitest";
import { type Launch, pointer } from "./context.js";
import { Fuser } from "./fuse.js";
import { matricesOf } from "./kernels/matmul.js";
import type { CudaBuffer } from "./memory.js";
import { RecordedLaunches } from "./recordedLaunches.js";

function view(place: number): View {
  const buffer = { address: 2 ** 30 + place * 4096, bytes: 4096 } as CudaBuffer;
  return { buffer, dtype: "bf16", shape: [1, 4, 4], strides: [16, 4, 1], offset: 0 };
}

/** One that may become part of another, or one that never does. */
const launch = (kernel: string, place: number): Launch => ({
  kernel,
  grid: 1,
  block: 32,
  args: Array.from({ length: 16 }, () => pointer(view(place))),
});

it.each([true, false])("keep their order, and what they named, fused: %s", (fused) => {
  const emitted: string[] = [];
  const emit = ({ kernel }: Launch) => emitted.push(kernel);
  const recorded = new RecordedLaunches(emit, fused ? new Fuser(132, emit, 2 ** 20) : undefined);
  const product = matricesOf("matrix", view(3));
  const links = ["conv_step_bf16", "rms_norm_bf16_v8", "conv_step_bf16"];
  recorded.launch(launch(links[0], 0));
  expect(emitted.length).toBe(fused ? 0 : 1);
  recorded.launch(launch("gather_bf16_v8", 1));
  expect(emitted).toEqual([links[0], "gather_bf16_v8"]);
  recorded.launch(launch(links[1], 0));
  recorded.clear(view(2));
  expect(emitted.length).toBe(3);
  recorded.launch(launch(links[2], 0));
  recorded.product({ a: product, b: product, out: product, m: 4, n: 4, k: 4, batch: 1, accumulate: false });
  expect(emitted.slice(2)).toEqual(links.slice(1));
  expect([0, 1, 2, 3, 4].map((place) => recorded.isUntouched(view(place)))).toEqual([false, false, false, false, true]);
});
