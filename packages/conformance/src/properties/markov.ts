// Layer: conformance. A whole model whose outputs are known in closed form: the counter of Markov chains, against counting.
// Knows that model and how it is read, and one device by name, whose arithmetic is allowed more.

import { countProbabilities, markovCounter } from "@diffmamba/models";
import { RandomStream } from "@diffmamba/random";
import { check } from "../compare.js";
import type { Property } from "./property.js";

const symbols = 3;
const beta = 0.5;
const length = 200;

/** The add-beta rule by counting: (n(current, s) + beta) / (n(current) + S beta) after each symbol. */
function rule(sequence: ArrayLike<number>): number[] {
  const counts = new Float64Array(symbols * symbols);
  const out: number[] = [];
  for (let t = 0; t < sequence.length; t++) {
    if (t > 0) counts[sequence[t - 1] * symbols + sequence[t]]++;
    const row = counts.subarray(sequence[t] * symbols, (sequence[t] + 1) * symbols);
    const total = row.reduce((sum, n) => sum + n, 0);
    for (const n of row) out.push((n + beta) / (total + symbols * beta));
  }
  return out;
}

const counter: Property = {
  name: "the closed-form Mamba-2 of Markov chains is the add-beta rule",
  dtypes: ["f64", "f32"],
  run: async (device, dtype) => {
    // WebGPU's exp and division are not correctly rounded.
    const tolerance = dtype === "f64" ? 1e-12 : device.name === "webgpu" ? 1e-5 : 1e-6;
    using model = markovCounter({ symbols, beta, device, dtype: dtype === "f64" ? "f64" : "f32" });
    const stream = new RandomStream(1, "Markov symbols");
    const rows = [1, 2].map((power, row) =>
      Array.from({ length }, (_, t) => Math.floor(symbols * stream.at(t, row) ** power)),
    );
    using tokens = model.tokens(rows);
    using found = countProbabilities(model, tokens);
    const own = await found.data();
    const worst = rows.flatMap((row) => rule(row)).reduce((most, p, i) => Math.max(most, Math.abs(own[i] - p)), 0);
    const outcome = check("probabilities", worst <= tolerance, `one is ${worst} off; ${tolerance} is allowed`);
    return [{ ...outcome, error: worst, tolerance }];
  },
};

export const markovProperties: readonly Property[] = [counter];
