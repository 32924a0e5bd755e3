// Model folders: the Hugging Face library's Mamba2Config (transformers, models/mamba2/configuration_mamba2.py), and the
// same with the two keys that the released Differential Mamba adds (NadavSc/Diff-Mamba, modules/modeling_diffmamba2.py).
// Knows configurations and keys. Knows no tensor and no file.

import { type ModelConfig, modelConfig } from "../config.js";
import type { JsonObject } from "../formats/index.js";
import type { WritableForm } from "./form.js";
import { Keys } from "./keys.js";
import { readShared, writeShared } from "./mamba.js";

const settings = ["alternate", "all", "quarter"] as const;

/** What the released class fixes: branches of expand 1, an epsilon of 1e-5 in the norm after the subtraction. */
function readDifferential(keys: Keys): Partial<ModelConfig> {
  keys.only("expand", [2], 2);
  keys.only("use_bias", [false], false);
  keys.only("layer_norm_epsilon", [1e-5], 1e-5);
  const wanted = settings.map((one) => `"${one}"`).join(" or ");
  const pattern = keys.value("diffmamba_settings", wanted, (value) => settings.find((one) => one === value));
  return { variant: "diffmamba2", pattern, lambda: "vecsum", subln: true, lambdaIndex: "mixer" };
}

export const mamba2Form: WritableForm = {
  name: "mamba2",
  matches: ({ model_type: type }) => type === "mamba2",
  read: (json, path) => {
    const keys = new Keys(json, path);
    keys.only("rms_norm", [true], true);
    const shared = readShared(keys, { dState: 128, tied: false });
    const headDim = keys.whole("head_dim", 64);
    const inner = shared.expand * shared.dModel;
    if (inner % headDim !== 0) keys.fail("head_dim", `a divisor of expand x hidden_size = ${inner}`);
    keys.only("num_heads", [inner / headDim], 128);
    const nGroups = keys.whole("n_groups", 8);
    return modelConfig({
      ...shared,
      variant: "mamba2",
      headDim,
      nGroups,
      // The library's class takes the gated norm over all channels, however many groups there are.
      normGroups: nGroups === 1 ? 0 : 1,
      dtLimit: keys.limits("time_step_limit"),
      chunkSize: keys.whole("chunk_size", 256),
      aInit: "range",
      ...(keys.flag("diffmamba", false) && readDifferential(keys)),
    });
  },
  write: (config) => {
    const { variant, pattern, dtLimit } = config;
    const differential = variant === "diffmamba2";
    if (!differential && variant !== "mamba2") return undefined;
    const diffKeys: JsonObject = { diffmamba: true, diffmamba_settings: typeof pattern === "string" ? pattern : null };
    return {
      ...writeShared(config),
      model_type: "mamba2",
      architectures: [differential ? "DiffMamba2ForCausalLM" : "Mamba2ForCausalLM"],
      num_heads: (config.expand * config.dModel) / config.headDim,
      head_dim: config.headDim,
      n_groups: config.nGroups,
      time_step_limit: [dtLimit[0], dtLimit[1] ?? Number.POSITIVE_INFINITY],
      chunk_size: config.chunkSize,
      rms_norm: true,
      ...(differential && diffKeys),
    };
  },
};
