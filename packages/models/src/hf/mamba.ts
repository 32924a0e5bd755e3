// Model folders: the Hugging Face library's MambaConfig (transformers, models/mamba/configuration_mamba.py).
// Knows configurations and keys. Knows no tensor and no file.

import { type ModelConfig, modelConfig } from "../config.js";
import type { JsonObject } from "../formats/index.js";
import type { WritableForm } from "./form.js";
import { Keys } from "./keys.js";

/** What the Mamba and Mamba-2 classes share; the defaults are theirs. */
export function readShared(keys: Keys, defaults: { readonly dState: number; readonly tied: boolean }) {
  keys.only("hidden_act", ["silu", "swish"], "silu");
  return {
    vocabSize: keys.whole("vocab_size"),
    dModel: keys.whole("hidden_size"),
    nLayers: keys.whole("num_hidden_layers"),
    dState: keys.whole("state_size", defaults.dState),
    dConv: keys.whole("conv_kernel", 4),
    expand: keys.whole("expand", 2),
    dtMin: keys.number("time_step_min", 0.001),
    dtMax: keys.number("time_step_max", 0.1),
    dtInitFloor: keys.number("time_step_floor", 1e-4),
    convBias: keys.flag("use_conv_bias", true),
    bias: keys.flag("use_bias", false),
    normEps: keys.number("layer_norm_epsilon", 1e-5),
    initializerRange: keys.number("initializer_range", 0.1),
    rescaleResidual: keys.flag("rescale_prenorm_residual", false),
    tieEmbeddings: keys.flag("tie_word_embeddings", defaults.tied),
  } satisfies Partial<ModelConfig>;
}

/** The keys of {@link readShared}. */
export function writeShared(config: ModelConfig): JsonObject {
  return {
    vocab_size: config.vocabSize,
    hidden_size: config.dModel,
    num_hidden_layers: config.nLayers,
    state_size: config.dState,
    conv_kernel: config.dConv,
    expand: config.expand,
    time_step_rank: dtRankOf(config),
    time_step_min: config.dtMin,
    time_step_max: config.dtMax,
    time_step_floor: config.dtInitFloor,
    use_conv_bias: config.convBias,
    use_bias: config.bias,
    hidden_act: "silu",
    layer_norm_epsilon: config.normEps,
    initializer_range: config.initializerRange,
    rescale_prenorm_residual: config.rescaleResidual,
    residual_in_fp32: true,
    tie_word_embeddings: config.tieEmbeddings,
    use_cache: true,
  };
}

function dtRankOf({ dtRank, dModel }: ModelConfig): number {
  return dtRank || Math.ceil(dModel / 16);
}

/** "auto" and its value are 0 here. */
export function readDtRank(keys: Keys, key: string, dModel: number): number {
  const auto = Math.ceil(dModel / 16);
  const accept = (value: unknown) => {
    if (value === "auto" || value === auto) return 0;
    return Number.isSafeInteger(value) && (value as number) >= 1 ? (value as number) : undefined;
  };
  return keys.value(key, '"auto" or a whole number of at least 1', accept, "auto");
}

export const mambaForm: WritableForm = {
  name: "mamba",
  matches: ({ model_type: type }) => type === "mamba",
  read: (json, path) => {
    const keys = new Keys(json, path);
    const shared = readShared(keys, { dState: 16, tied: true });
    const inner = shared.expand * shared.dModel;
    keys.only("intermediate_size", [inner], inner);
    return modelConfig({ ...shared, variant: "mamba", dtRank: readDtRank(keys, "time_step_rank", shared.dModel) });
  },
  write: (config) => {
    if (config.variant !== "mamba") return undefined;
    return {
      ...writeShared(config),
      model_type: "mamba",
      architectures: ["MambaForCausalLM"],
      intermediate_size: config.expand * config.dModel,
      time_step_init_scheme: "random",
      time_step_scale: 1,
    };
  },
};
