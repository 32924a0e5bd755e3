// Model folders: the original form of state-spaces/mamba (mamba_ssm, models/config_mamba.py and mixer_seq_simple.py), whose
// config.json has `ssm_cfg` with the mixer's own options.
// Knows configurations and keys. Knows no tensor and no file.

import { type ModelConfig, modelConfig } from "../config.js";
import type { ModelForm } from "./form.js";
import { Keys } from "./keys.js";
import { readDtRank } from "./mamba.js";

/** Options that both mixers have. */
function readCommon(ssm: Keys, dState: number): Partial<ModelConfig> & { readonly expand: number } {
  return {
    dState: ssm.whole("d_state", dState),
    dConv: ssm.whole("d_conv", 4),
    expand: ssm.whole("expand", 2),
    dtMin: ssm.number("dt_min", 0.001),
    dtMax: ssm.number("dt_max", 0.1),
    dtInitFloor: ssm.number("dt_init_floor", 1e-4),
    convBias: ssm.flag("conv_bias", true),
    bias: ssm.flag("bias", false),
  };
}

const commonKeys = ["layer", "d_state", "d_conv", "expand", "dt_min", "dt_max", "dt_init_floor", "conv_bias", "bias"];

function readMamba(ssm: Keys, dModel: number): Partial<ModelConfig> {
  ssm.expectOnly([...commonKeys, "dt_rank", "dt_init", "dt_scale", "use_fast_path"]);
  return { ...readCommon(ssm, 16), variant: "mamba", dtRank: readDtRank(ssm, "dt_rank", dModel) };
}

function readMamba2(ssm: Keys, dModel: number): Partial<ModelConfig> {
  const own = ["headdim", "d_ssm", "ngroups", "D_has_hdim", "rmsnorm", "norm_before_gate", "dt_limit", "chunk_size"];
  ssm.expectOnly([...commonKeys, ...own, "A_init_range", "conv_init", "use_mem_eff_path"]);
  const common = readCommon(ssm, 128);
  const inner = common.expand * dModel;
  ssm.only("d_ssm", [inner], inner);
  return {
    ...common,
    variant: "mamba2",
    headDim: ssm.whole("headdim", 64),
    nGroups: ssm.whole("ngroups", 1),
    dHasHeadDim: ssm.flag("D_has_hdim", false),
    rmsNorm: ssm.flag("rmsnorm", true),
    normBeforeGate: ssm.flag("norm_before_gate", false),
    dtLimit: ssm.limits("dt_limit"),
    chunkSize: ssm.whole("chunk_size", 256),
  };
}

export const originalForm: ModelForm = {
  name: "state-spaces/mamba",
  matches: (json) => json.model_type === undefined && "d_model" in json && "n_layer" in json,
  read: (json, path) => {
    const keys = new Keys(json, path);
    keys.only("d_intermediate", [0], 0);
    keys.only("attn_layer_idx", [[]], []);
    const dModel = keys.whole("d_model");
    const multiple = keys.whole("pad_vocab_size_multiple", 8);
    const ssm = keys.inner("ssm_cfg");
    const layers = { Mamba1: readMamba, Mamba2: readMamba2 };
    const layer = ssm.value(
      "layer",
      '"Mamba1" or "Mamba2"',
      (name) => (name === "Mamba1" || name === "Mamba2" ? name : undefined),
      "Mamba1",
    );
    return modelConfig({
      vocabSize: Math.ceil(keys.whole("vocab_size") / multiple) * multiple,
      dModel,
      nLayers: keys.whole("n_layer"),
      norm: keys.flag("rms_norm", true) ? "rms" : "layer",
      tieEmbeddings: keys.flag("tie_embeddings", true),
      ...layers[layer](ssm, dModel),
    });
  },
};
