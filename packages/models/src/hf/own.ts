// Model folders: the form of this project, for models that no published class has. The whole configuration is in it.
// Knows configurations. Knows no tensor and no file.

import { type ModelConfig, modelConfig } from "../config.js";
import { FormatError, isJsonObject } from "../formats/index.js";
import type { WritableForm } from "./form.js";

/** The key of a configuration, whole in this form, in part in the published ones. */
export const ownKey = "diffmamba_config";

export const ownForm: WritableForm = {
  name: "diffmamba",
  matches: ({ model_type: type }) => type === "diffmamba",
  read: (json, path) => {
    const fields = json[ownKey];
    if (!isJsonObject(fields)) throw new FormatError(path, `"${ownKey}" is missing; it must hold the configuration`);
    return modelConfig(fields as Partial<ModelConfig>);
  },
  write: (config) => ({
    model_type: "diffmamba",
    architectures: ["DiffMambaForCausalLM"],
    vocab_size: config.vocabSize,
    hidden_size: config.dModel,
    num_hidden_layers: config.nLayers,
    tie_word_embeddings: config.tieEmbeddings,
    [ownKey]: JSON.parse(JSON.stringify(config)),
  }),
};
