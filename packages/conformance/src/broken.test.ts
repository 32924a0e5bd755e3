// The suite itself under test: whatever is wrong in a kernel, some case of its op must notice.
import { contiguousStrides, type Device, type Kernels, opSpecs, reference, type View } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { deviceWhere, deviceWith, disturb, isView } from "./broken.testing.js";
import { gaps, opCases } from "./cases/index.js";
import { ConformanceError } from "./compare.js";
import { gradientGaps } from "./gradients.js";
import { conformanceTests, runConformance } from "./suite.js";

const oracle = reference();
afterAll(() => oracle.dispose());

/** The first failure of an op's cases on a device, or undefined where all of them pass. */
async function firstFailure(device: Device, ops: readonly string[]): Promise<string | undefined> {
  const options = {
    oracle,
    dtypes: ["f32", "i32", "u8"] as const,
    filter: ({ suite, op }: { suite: string; op?: string }) => suite === "ops" && op !== undefined && ops.includes(op),
  };
  try {
    for await (const { failure } of runConformance(device, options)) if (failure !== undefined) return failure.message;
    return undefined;
  } finally {
    await device.dispose();
  }
}

interface Primitive {
  readonly kernel: keyof Kernels;
  /** The op whose cases must notice. */
  readonly op: string;
  /** The one function that is broken, of a kernel of several. */
  readonly only?: string;
}

const functionsOf = (kernel: keyof Kernels, names: readonly string[]): Primitive[] =>
  names.map((name) => ({ kernel, op: name, only: name }));

const primitives: readonly Primitive[] = [
  ...functionsOf("unary", ["neg", "abs", "sign", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "sigmoid"]),
  ...functionsOf("unary", ["tanh", "softplus", "silu", "erf"]),
  ...functionsOf("binary", ["add", "sub", "mul", "div", "max", "min", "pow"]),
  ...functionsOf("compare", ["eq", "lt", "le"]),
  { kernel: "reduce", op: "sum", only: "sum" },
  { kernel: "reduce", op: "reduceMax", only: "max" },
  { kernel: "matmul", op: "linear" },
  { kernel: "scatterAdd", op: "gather" },
  ...(["where", "argmax", "cumsum", "matmul", "gather", "scatterAdd"] as const).map((op) => ({ kernel: op, op })),
  ...(["copy", "fill", "iota", "random", "globalNorm"] as const).map((op) => ({ kernel: op, op })),
];

const outputPosition: Partial<Record<keyof Kernels, number>> = {
  unary: 2,
  binary: 3,
  compare: 3,
  where: 3,
  reduce: 2,
  argmax: 1,
  cumsum: 1,
  matmul: 2,
  gather: 2,
  scatterAdd: 2,
  copy: 1,
  fill: 0,
  iota: 0,
  random: 0,
  globalNorm: 1,
};

describe("a primitive that is off by a thousandth is noticed", () => {
  it.each(primitives)("$kernel, by the cases of $op", async ({ kernel, op, only }) => {
    const device = deviceWhere(kernel, (right, args, kernels) => {
      right(...args);
      if (only === undefined || args[0] === only) disturb(args[outputPosition[kernel] ?? 0] as View, kernels);
    });
    expect(await firstFailure(device, [op])).toContain("failed");
  });
});

describe("a primitive that takes every view for a contiguous one is noticed", () => {
  const strided = ["unary", "binary", "compare", "where", "reduce", "argmax", "cumsum", "copy"] as const;
  const noticedBy: Record<(typeof strided)[number], readonly string[]> = {
    unary: ["neg"],
    binary: ["mul", "sub"],
    compare: ["eq"],
    where: ["where"],
    reduce: ["sum"],
    argmax: ["argmax"],
    cumsum: ["cumsum"],
    copy: ["copy"],
  };
  it.each(strided)("%s, its strides", async (kernel) => {
    const device = deviceWhere(kernel, (right, args) => {
      const contiguous = (arg: unknown) => (isView(arg) ? { ...arg, strides: contiguousStrides(arg.shape) } : arg);
      right(...args.map(contiguous));
    });
    expect(await firstFailure(device, noticedBy[kernel])).toContain("failed");
  });

  it.each(strided)("%s, its offset", async (kernel) => {
    const device = deviceWhere(kernel, (right, args) => {
      right(...args.map((arg) => (isView(arg) ? { ...arg, offset: 0 } : arg)));
    });
    expect(await firstFailure(device, noticedBy[kernel])).toContain("failed");
  });
});

const routines = ["causalConv1d", "selectiveScan", "ssdScan", "rmsNorm", "layerNorm", "softmaxCrossEntropy"] as const;

type Named = Record<string, View>;

/** The names of all outputs that a routine's kernel is ever given to write. */
async function outputNames(kernel: keyof Kernels, op: string): Promise<string[]> {
  const names = new Set<string>();
  const device = deviceWhere(kernel, (right, args) => {
    for (const name of Object.keys(args[1] as Named)) names.add(name);
    right(...args);
  });
  await firstFailure(device, [op]);
  return [...names];
}

describe("a routine with one output that is off by a thousandth is noticed", () => {
  for (const op of routines) {
    for (const kernel of [op, `${op}Backward`] as const) {
      it(`${kernel}: each output`, async () => {
        const names = await outputNames(kernel, op);
        expect(names.length).toBeGreaterThan(0);
        for (const name of names) {
          const device = deviceWhere(kernel, (right, args, kernels) => {
            right(...args);
            const output = (args[1] as Named)[name];
            if (output !== undefined) disturb(output, kernels);
          });
          expect(await firstFailure(device, [op]), name).toContain("failed");
        }
      });
    }
  }

  it.each(["params", "m", "v", "step"])("adamw: %s", async (name) => {
    const device = deviceWhere("adamw", (right, args, kernels) => {
      right(...args);
      const found = (args[0] as Record<string, View | readonly View[]>)[name];
      for (const view of isView(found) ? [found] : (found as readonly View[])) disturb(view, kernels);
    });
    expect(await firstFailure(device, ["adamw"])).toContain("failed");
  });
});

describe("a routine that takes every view for a contiguous one is noticed", () => {
  const contiguous = (views: Named): Named =>
    Object.fromEntries(
      Object.entries(views).map(([name, view]) => [
        name,
        { ...view, strides: contiguousStrides(view.shape), offset: 0 },
      ]),
    );
  for (const op of routines) {
    it(`${op}: its inputs, and those of its gradient`, async () => {
      for (const kernel of [op, `${op}Backward`] as const) {
        const device = deviceWhere(kernel, (right, [inputs, outputs, options]) => {
          right(contiguous(inputs as Named), outputs, options);
        });
        expect(await firstFailure(device, [op]), kernel).toContain("failed");
      }
    });
  }

  // The logits' gradient is the one that no case asks for as a part of a packed one.
  it.each(routines.filter((op) => op !== "softmaxCrossEntropy"))("%s: the gradients that it writes", async (op) => {
    const device = deviceWhere(`${op}Backward`, (right, [inputs, outputs, options]) => {
      right(inputs, contiguous(outputs as Named), options);
    });
    expect(await firstFailure(device, [op])).toContain("failed");
  });
});

describe("a routine that overlooks an input or an option is noticed", () => {
  const sequence = ["initialState", "seqIdx", "lengths"];
  const overlooked: readonly (readonly [keyof Kernels, string, readonly string[]])[] = [
    ["causalConv1d", "causalConv1d", [...sequence, "bias"]],
    ["causalConv1dBackward", "causalConv1d", [...sequence, "bias", "dy", "dfinalState"]],
    ["selectiveScan", "selectiveScan", [...sequence, "D", "z", "deltaBias"]],
    ["selectiveScanBackward", "selectiveScan", ["seqIdx", "lengths", "D", "z", "deltaBias", "dy", "dfinalState"]],
    ["ssdScan", "ssdScan", [...sequence, "D", "z", "dtBias"]],
    ["ssdScanBackward", "ssdScan", ["seqIdx", "lengths", "D", "z", "dtBias", "dy", "dfinalState"]],
    ["rmsNorm", "rmsNorm", ["z"]],
    ["rmsNormBackward", "rmsNorm", ["z"]],
    ["layerNorm", "layerNorm", ["bias"]],
  ];
  it.each(overlooked)("%s: each input", async (kernel, op, names) => {
    for (const name of names) {
      const device = deviceWhere(kernel, (right, [inputs, outputs, options]) => {
        const { [name]: _, ...others } = inputs as Named;
        // A gradient of what was overlooked would be no number at all: too easy to notice.
        const { [`d${name}`]: __, ...written } = outputs as Named;
        right(others, name.startsWith("d") ? outputs : written, options);
      });
      expect(await firstFailure(device, [op]), name).toContain("failed");
    }
  });

  const options: readonly (readonly [keyof Kernels, string, object])[] = [
    ["causalConv1d", "causalConv1d", { activation: "silu" }],
    ["causalConv1dBackward", "causalConv1d", { activation: "silu" }],
    ["selectiveScan", "selectiveScan", { deltaSoftplus: true }],
    ["selectiveScanBackward", "selectiveScan", { deltaSoftplus: true }],
    ["ssdScan", "ssdScan", { dtSoftplus: true }],
    ["ssdScan", "ssdScan", { dtLimit: [0, Number.POSITIVE_INFINITY] }],
    ["ssdScanBackward", "ssdScan", { dtSoftplus: true }],
    ["ssdScanBackward", "ssdScan", { dtLimit: [0, Number.POSITIVE_INFINITY] }],
    ["rmsNorm", "rmsNorm", { normBeforeGate: false }],
    ["rmsNormBackward", "rmsNorm", { normBeforeGate: false }],
    ["rmsNorm", "rmsNorm", { eps: 1e-5 }],
    ["layerNorm", "layerNorm", { eps: 1e-5 }],
    ["softmaxCrossEntropy", "softmaxCrossEntropy", { ignoreIndex: -100 }],
    ["softmaxCrossEntropyBackward", "softmaxCrossEntropy", { ignoreIndex: -100 }],
  ];
  it.each(options)("%s: %s with %o always", async (kernel, op, fixed) => {
    const device = deviceWhere(kernel, (right, [inputs, outputs, given]) => {
      right(inputs, outputs, { ...(given as object), ...fixed });
    });
    // The right kernel may also throw for what it then takes for an index.
    expect(await firstFailure(device, [op])).toMatch(/failed|outside/);
  });
});

describe("the suite", () => {
  it("passes where nothing is broken", async () => {
    const every = opSpecs.map(({ name }) => name);
    expect(
      await firstFailure(
        deviceWith(() => ({})),
        every,
      ),
    ).toBeUndefined();
  });

  it("notices results that change from run to run", async () => {
    let calls = 0;
    const device = deviceWhere("layerNorm", (right, args, kernels) => {
      right(...args);
      const { y } = args[1] as Named;
      if (calls++ > 0 && y.shape[0] > 0) kernels.fill({ ...y, shape: [], strides: [] }, calls);
    });
    expect(await firstFailure(device, ["layerNorm"])).toContain("y, again: two runs gave different bits");
  });

  it("names a routine that a backend lacks", async () => {
    const device = deviceWith(() => ({ ssdScan: undefined }));
    expect(await firstFailure(device, ["ssdScan"])).toBe("ssdScan: the backend broken has no such kernel.");
  });

  it("skips by its name what a backend may lack, and nothing else; the reference lacks nothing", async () => {
    const properties = {
      oracle,
      dtypes: ["f32"] as const,
      filter: ({ suite }: { suite: string }) => suite === "properties",
    };
    const lacking = deviceWith(() => ({ ssdDeferred: undefined }));
    const tests = conformanceTests(lacking, oracle, properties);
    const skipped = tests.filter(({ skipped }) => skipped !== undefined);
    expect(skipped.length).toBeGreaterThan(0);
    for (const test of skipped) {
      expect(test.name).toMatch(/^ssdScan: tokens deferred/);
      expect(test.skipped).toBe("the backend broken has no kernel ssdDeferred");
    }
    const names = new Set(skipped.map(({ name }) => name));
    const only = { ...properties, filter: ({ name }: { name: string }) => names.has(name) };
    for await (const { passed, failure, checks } of runConformance(lacking, only)) {
      expect({ passed, failure, checks }).toEqual({ passed: false, failure: undefined, checks: [] });
    }
    await lacking.dispose();
    expect(conformanceTests(oracle, oracle).filter(({ skipped }) => skipped !== undefined)).toEqual([]);
  });

  it("fails for an op without a case, in any of its types, and without differences", () => {
    const added = { kind: "primitive", accumulates: "none", saves: "nothing" } as const;
    const fresh = { ...added, name: "softcap", dtypes: ["f32"], gradients: ["x"] } as const;
    expect(gaps([...opSpecs, fresh])).toEqual(["softcap has no case"]);
    expect(gradientGaps([fresh], opCases)).toEqual(["softcap: no case compares the gradient of x with differences"]);
    const withoutExp = opSpecs.filter(({ name }) => name !== "exp");
    expect(gaps(withoutExp)[0]).toMatch(/^there is no op exp, but the case/);
    expect(gaps([...withoutExp, { ...fresh, name: "exp", dtypes: ["f32", "u8"] }])).toEqual(["exp has no case in u8"]);
  });

  it("runs only the types that are there and asked for", () => {
    const device = deviceWith(() => ({}));
    const typesOf = (tests: readonly { name: string }[]) => new Set(tests.map(({ name }) => name.split(", ").pop()));
    const tests = conformanceTests(device, oracle, { dtypes: ["f32"], filter: ({ suite }) => suite !== "coverage" });
    expect(typesOf(tests)).toEqual(new Set(["f32"]));
    expect(tests.some(({ suite }) => suite === "gradients")).toBe(false);
  });

  it("gives every outcome with its checks, and throws for none", async () => {
    const device = reference();
    const results = [];
    for await (const result of runConformance(device, { dtypes: ["f32"], filter: ({ op }) => op === "exp" })) {
      results.push(result);
    }
    await device.dispose();
    expect(results.length).toBe(opCases.filter(({ op }) => op === "exp").length);
    for (const { passed, failure, checks } of results) {
      expect(failure).toBeUndefined();
      expect(passed).toBe(true);
      expect(checks.length).toBeGreaterThan(2);
    }
    expect(new ConformanceError("x", []).name).toBe("ConformanceError");
  });
});
