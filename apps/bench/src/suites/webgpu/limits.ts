// Layer: apps/bench, suites of the WebGPU backend. What an adapter gives to plain shaders: multiply-adds in registers, and a copy.
// Knows the backend's way to run a shader. Knows no op.
import type { WebGpuBackend } from "@diffmamba/backend-webgpu";
import type { Device, View } from "@diffmamba/tensor";
import { onDevice } from "../../data.js";
import type { Entry, Settings } from "../../race.js";

const THREADS = 256;

/** Rounds and chains of the loop of multiply-adds; each chain is of vectors of four. */
const ROUNDS = 512;
const CHAINS = 4;

const multiplyAddText = `
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let x = vec4f(0.999);
  let y = vec4f(0.001);
  var a = vec4f(f32(id.x) * 1e-6);
  var b = a + 0.1;
  var c = a + 0.2;
  var d = a + 0.3;
  for (var i = 0u; i < ${ROUNDS}u; i++) {
    a = fma(a, x, y);
    b = fma(b, x, y);
    c = fma(c, x, y);
    d = fma(d, x, y);
  }
  $out[id.x % 1024u] = dot(a + b, c + d);
}
`;

const copyText = `
#include grid
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = linear_group(group, groups) * ${4 * THREADS}u + lane;
  for (var k = 0u; k < 4u; k++) {
    let i = first + k * ${THREADS}u;
    if (i < u.items) {
      $out[u.out_at + i] = $x[u.x_at + i] * 2.0;
    }
  }
}
`;

function contextOf({ backend }: Device): WebGpuBackend["context"] {
  if (!("context" in backend)) throw new Error(`${backend.name} runs no shaders`);
  return (backend as WebGpuBackend).context;
}

/** The rate of multiply-adds that no product exceeds: nothing is loaded. */
export function multiplyAdds(device: Device, { loopGroups }: Settings): Entry {
  const context = contextOf(device);
  const out = device.zeros([1024]);
  return onDevice(device, {
    work: { "GFLOP/s": 2 * 4 * CHAINS * ROUNDS * loopGroups * THREADS },
    holds: [out],
    run: () =>
      context.run({
        shader: { name: "bench-multiply-add", text: multiplyAddText },
        ...{ buffers: { out: out.view() }, writes: ["out"], groups: loopGroups },
      }),
    outputs: () => [out.clone()],
  });
}

/** A kernel that reads half of `bytes` and writes as many: a vector of four to a thread and step. */
export function shaderCopy(device: Device, bytes: number): Entry {
  const context = contextOf(device);
  const items = Math.max(1, Math.ceil(bytes / 32));
  const [x, out] = [device.ones([4 * items]), device.empty([4 * items])];
  const use = (view: View) => ({ view, vec: 4 as const });
  const entry = onDevice(device, {
    work: { "GB/s": 32 * items, ms: 1, "ms/token": 1 },
    holds: [x, out],
    run: () =>
      context.run({
        shader: { name: "bench-copy", text: copyText },
        ...{ buffers: { x: use(x.view()), out: use(out.view()) }, writes: ["out"], uniforms: { items } },
        groups: Math.ceil(items / (4 * THREADS)),
      }),
  });
  return { ...entry, name: "a shader that copies as much" };
}
