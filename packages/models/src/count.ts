// How many numbers a model trains, without the memory that it takes.
// Knows models. Knows no backend by name.

import { shapesOnly } from "@diffmamba/tensor";
import type { ModelConfig } from "./config.js";
import { MambaLM } from "./model.js";

/** The number of parameters of a configuration; tied tables count once. @throws ConfigError */
export function countParameters(config: Partial<ModelConfig>): number {
  const device = shapesOnly();
  try {
    using model = MambaLM.create(config, { device });
    return model.parameterCount();
  } finally {
    void device.dispose();
  }
}
