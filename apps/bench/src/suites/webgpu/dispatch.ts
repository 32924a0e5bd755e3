// Layer: apps/bench, suites of the WebGPU backend. What the processor spends on a kernel that is enqueued, in a batch of many, beside
// the least that WebGPU asks for: two calls of it. Knows kernels as calls. Knows no shader of the backend.
import process from "node:process";
import type { WebGpuBackend } from "@diffmamba/backend-webgpu";
import type { Device } from "@diffmamba/tensor";
import type { Case, RowPart, Settings } from "../../race.js";

const ROUNDS = 21;

/** Elements of a kernel. */
const ELEMENTS = 256;

/** Dispatches of a submit of the plain calls, as many as the backend's. */
const BATCH = 256;

/** GPUBufferUsage.STORAGE and GPUShaderStage.COMPUTE, which are global names only in a browser. */
const STORAGE = 0x80;
const COMPUTE = 0x4;

const negation = `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(${ELEMENTS})
fn main(@builtin(global_invocation_id) id: vec3u) { out[id.x] = -x[id.x]; }
`;

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];

/** The same work by WebGPU's own calls: a bind group and a dispatch each, to and fro between two buffers. */
function plainCalls({ gpu }: WebGpuBackend, dispatches: number): () => void {
  const buffers = [0, 1].map(() => gpu.createBuffer({ size: 4 * ELEMENTS, usage: STORAGE }));
  const layout = gpu.createBindGroupLayout({
    entries: (["read-only-storage", "storage"] as const).map((type, binding) => {
      return { binding, visibility: COMPUTE, buffer: { type } };
    }),
  });
  const pipeline = gpu.createComputePipeline({
    layout: gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module: gpu.createShaderModule({ code: negation }), entryPoint: "main" },
  });
  const groups = [0, 1].map((from) => {
    const entries = [from, 1 - from].map((i, binding) => ({ binding, resource: { buffer: buffers[i] } }));
    return gpu.createBindGroup({ layout, entries });
  });
  return () => {
    for (let from = 0; from < dispatches; from += BATCH) {
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      for (let i = from; i < Math.min(from + BATCH, dispatches); i++) {
        pass.setBindGroup(0, groups[i % 2]);
        pass.dispatchWorkgroups(1);
      }
      pass.end();
      gpu.queue.submit([encoder.finish()]);
    }
  };
}

/** Microseconds a dispatch of each round. */
interface Spent {
  /** Of the thread that enqueues. */
  readonly own: number[];
  /** Of all threads until it is done, Dawn's included. */
  readonly all: number[];
}

async function spend(device: Device, dispatches: number, enqueue: () => void, { own, all }: Spent): Promise<void> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  enqueue();
  own.push(((performance.now() - start) * 1e3) / dispatches);
  await device.synchronize();
  const { user, system } = process.cpuUsage(cpu);
  all.push((user + system) / dispatches);
}

export function dispatchCases({ dispatches }: Settings): Case[] {
  const shape = `${dispatches} kernels of ${ELEMENTS} elements`;
  const name = "processor time of a dispatch";
  return [
    {
      name,
      shape,
      async prepare({ devices: [device] }) {
        using x = device.ones([ELEMENTS]);
        using y = device.empty([ELEMENTS]);
        const [from, to] = [x.view(), y.view()];
        const { kernels } = device.backend;
        const calls = () => {
          for (let i = 0; i < dispatches; i++) kernels.unary("neg", i % 2 ? to : from, i % 2 ? from : to);
        };
        const recorded = device.record(calls);
        const ways: Record<string, () => void> = {
          plain: plainCalls(device.backend as WebGpuBackend, dispatches),
          calls,
          recorded: () => recorded.replay(),
        };
        const spent: Record<string, Spent> = {};
        // In turns, so that what else the machine does hits all of them.
        for (let round = 0; round < ROUNDS; round++) {
          for (const [way, enqueue] of Object.entries(ways)) {
            spent[way] ??= { own: [], all: [] };
            await spend(device, dispatches, enqueue, spent[way]);
          }
        }
        recorded.dispose();
        const row = (what: string, way: string, part: keyof Spent): RowPart => {
          const [ours, plain] = [spent[way][part], spent.plain[part]];
          const [value, peerValue] = [median(ours), median(plain)];
          return {
            name: `${name}, ${what}`,
            ...{ shape, unit: "us/dispatch", value, best: Math.min(...ours), backend: device.name },
            ...{ peer: "WebGPU's own calls", peerValue, peerBest: Math.min(...plain), ratio: peerValue / value },
            ...{ spread: 0, samples: ROUNDS },
          };
        };
        return {
          entries: [],
          checks: [],
          rows: () => [
            ...[row("to enqueue it", "calls", "own"), row("all threads", "calls", "all")],
            ...[row("recorded, to enqueue it", "recorded", "own"), row("recorded, all threads", "recorded", "all")],
          ],
        };
      },
    },
  ];
}
