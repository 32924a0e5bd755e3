// Layer: conformance. Goldens of ops: the scans, the convolution, the norm and the optimizer, from each file's metadata.
// Knows those ops' calls and the files' layouts. Knows no test runner and no backend by name.

import {
  type AdamWTensors,
  adamw,
  causalConv1d,
  type Device,
  rmsNorm,
  scope,
  selectiveScan,
  ssdScan,
  type Tensor,
  valueAndGrad,
} from "@diffmamba/tensor";
import { type Check, compareValues, type FloatType, statisticsType, tolerances } from "../compare.js";
import { type Golden, GoldenError, type GoldenRunner } from "./golden.js";

type InputType = "main" | "statistic";
type Tensors = Readonly<Record<string, Tensor>>;

interface OpGolden {
  /** Inputs by their names in the file; those that are optional may be absent. */
  readonly required: Readonly<Record<string, InputType>>;
  readonly optional: Readonly<Record<string, InputType>>;
  /** From the inputs, laid out as in the file, to the outputs that the file has, under its names; `out` among them. */
  readonly call: (inputs: Tensors, golden: Golden) => Tensors;
}

/** The layout that a file names. @throws GoldenError for another one */
function expectLayout(golden: Golden, layout: string): void {
  golden.option("layout", `"${layout}"`, (value) => (value === layout ? value : undefined));
}

const selectiveScanGolden: OpGolden = {
  required: { u: "main", delta: "main", A: "statistic", B: "main", C: "main" },
  optional: { D: "statistic", z: "main", delta_bias: "statistic" },
  call: ({ u, delta, A, B, C, D, z, delta_bias: deltaBias }, golden) => {
    expectLayout(golden, "u,delta,z,out:(B,D,L) B,C:(B,N,L) or (B,G,N,L) A:(D,N)");
    const lastAxisFirst = (x: Tensor) => (x.rank === 4 ? x.permute(0, 3, 1, 2) : x.transpose());
    const { y, finalState } = selectiveScan(
      {
        u: u.transpose(),
        delta: delta.transpose(),
        A,
        B: lastAxisFirst(B),
        C: lastAxisFirst(C),
        D,
        z: z?.transpose(),
        deltaBias,
      },
      { deltaSoftplus: golden.boolean("delta_softplus") },
    );
    return { out: y.transpose(), last_state: finalState };
  },
};

const convGolden: OpGolden = {
  required: { x: "main", weight: "main" },
  optional: { bias: "main" },
  call: ({ x, weight, bias }, golden) => {
    expectLayout(golden, "x,out:(B,D,L) weight:(D,W)");
    const activation = golden.option("activation", '"silu" or null', (value) =>
      value === "silu" ? "silu" : value === null ? "none" : undefined,
    );
    return { out: causalConv1d(x.transpose(), weight, { bias, activation }).y.transpose() };
  },
};

const ssdGolden: OpGolden = {
  required: { x: "main", dt: "main", A: "statistic", B: "main", C: "main" },
  optional: { D: "statistic", z: "main", dt_bias: "statistic" },
  call: ({ x, dt, A, B, C, D, z, dt_bias: dtBias }, golden) => {
    expectLayout(golden, "x:(B,L,H,P) dt:(B,L,H) B,C:(B,L,G,N)");
    const dtLimit = golden.option("dt_limit", "two numbers or null", (value): [number, number] | undefined => {
      if (value === null) return [0, Number.POSITIVE_INFINITY];
      if (!Array.isArray(value) || value.length !== 2) return undefined;
      const [low, high] = value;
      return typeof low === "number" && typeof high === "number" ? [low, high] : undefined;
    });
    const options = { dtSoftplus: golden.boolean("dt_softplus"), dtLimit };
    const { y, finalState } = ssdScan({ x, dt, A, B, C, D, z, dtBias }, options);
    return { out: y, final_state: finalState };
  },
};

const rmsNormGolden: OpGolden = {
  required: { x: "main", weight: "main" },
  optional: { z: "main" },
  call: ({ x, weight, z: gate }, golden) => {
    if (golden.boolean("gated") !== (gate !== undefined)) {
      throw new GoldenError(golden.path, `its "gated" is ${gate === undefined}, but it has ${gate ? "a" : "no"} z.`);
    }
    const groupSize = golden.option("group_size", "a number or null", (value) =>
      value === null || typeof value === "number" ? (value ?? x.dim(-1)) : undefined,
    );
    const options = { normBeforeGate: golden.boolean("norm_before_gate"), eps: golden.number("eps"), groupSize };
    return { out: rmsNorm(x, weight, { gate, ...options }) };
  },
};

/** The number-valued tensor of a file on a device. */
function place(golden: Golden, name: string, device: Device, dtype: FloatType): Tensor {
  const { shape, data } = golden.values(name);
  return device.from(Float64Array.from(data), shape, dtype);
}

/** Outputs, and the gradients of sum(out * dout), against the file's. */
async function runOp(op: OpGolden, device: Device, dtype: FloatType, golden: Golden): Promise<Check[]> {
  const { forward, gradient } = tolerances.golden[dtype];
  const optional = Object.entries(op.optional).filter(([name]) => golden.has(name));
  const inputs: Record<string, Tensor> = {};
  for (const [name, type] of [...Object.entries(op.required), ...optional]) {
    inputs[name] = place(golden, name, device, type === "main" ? dtype : statisticsType(dtype));
  }
  const weights = place(golden, "dout", device, dtype);
  const checks: Check[] = [];
  const compare = async (name: string, tensor: Tensor, tolerance: number) => {
    const values = { shape: tensor.shape, data: await tensor.data() };
    checks.push(compareValues(name, values, golden.values(name), tolerance));
    tensor.dispose();
  };
  try {
    const outputs = scope(() => op.call(inputs, golden));
    for (const [name, output] of Object.entries(outputs)) await compare(name, output, forward);
    const leaves = Object.values(inputs);
    const { value, gradients } = valueAndGrad(() => op.call(inputs, golden).out.mul(weights).sum(), leaves);
    value.dispose();
    for (const [i, name] of Object.keys(inputs).entries()) await compare(`d${name}`, gradients[i], gradient);
  } finally {
    for (const tensor of [...Object.values(inputs), weights]) tensor.dispose();
  }
  return [...checks, ...golden.unseen()];
}

function numbers(golden: Golden, key: string): number[] {
  return golden.option(key, "a list of numbers", (value) =>
    Array.isArray(value) && value.every((one) => typeof one === "number") ? value : undefined,
  );
}

/** Every step of the optimizer from the first parameters on, each on the file's gradients. */
async function runAdamW(device: Device, dtype: FloatType, golden: Golden): Promise<Check[]> {
  const steps = golden.number("steps");
  const weightDecay = numbers(golden, "weight_decay");
  const [beta1, beta2, ...more] = numbers(golden, "betas");
  if (beta2 === undefined || more.length > 0) throw new GoldenError(golden.path, 'its "betas" are not two numbers.');
  const options = { beta1, beta2, eps: golden.number("eps"), weightDecay };
  const statistic = statisticsType(dtype);
  const params = weightDecay.map((_, j) => place(golden, `p${j}_0`, device, dtype));
  const state: Omit<AdamWTensors, "grads"> = {
    params,
    m: params.map(({ shape }) => device.zeros(shape, statistic)),
    v: params.map(({ shape }) => device.zeros(shape, statistic)),
    lr: device.full([], golden.number("lr"), statistic),
    step: device.zeros([], "i32"),
    scale: device.ones([], statistic),
    norm: device.ones([], statistic),
  };
  const checks: Check[] = [];
  for (let step = 1; step <= steps; step++) {
    const grads = params.map((_, j) => place(golden, `g${j}_${step}`, device, dtype));
    adamw({ ...state, grads }, options);
    for (const [j, param] of params.entries()) {
      const name = `p${j}_${step}`;
      const values = { shape: param.shape, data: await param.data() };
      checks.push(compareValues(name, values, golden.values(name), tolerances.golden[dtype].forward));
      grads[j].dispose();
    }
  }
  const { m, v, lr, step, scale, norm } = state;
  for (const tensor of [...params, ...m, ...v, lr, step, scale, norm]) tensor.dispose();
  return [...checks, ...golden.unseen()];
}

function opRunner(name: string, op: OpGolden): GoldenRunner {
  return {
    name,
    matches: (meta) => meta.op === name,
    run: (device, dtype, golden) => runOp(op, device, dtype, golden),
  };
}

export const opRunners: readonly GoldenRunner[] = [
  opRunner("selective_scan", selectiveScanGolden),
  opRunner("causal_conv1d", convGolden),
  opRunner("ssd", ssdGolden),
  opRunner("rms_norm", rmsNormGolden),
  { name: "adamw", matches: (meta) => meta.op === "adamw", run: runAdamW },
];
