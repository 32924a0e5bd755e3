// Layer: conformance. All properties.
// Knows the lists of properties. Knows no property.

import { compositionProperties } from "./compositions.js";
import { deferredTokenProperties } from "./deferredTokens.js";
import { markovProperties } from "./markov.js";
import { narrowStateProperties } from "./narrowStates.js";
import { productProperties } from "./products.js";
import type { Property } from "./property.js";
import { recordingProperties } from "./recordings.js";
import { sequenceProperties } from "./sequences.js";
import { valueProperties } from "./values.js";

/** Every property. */
export const properties: readonly Property[] = [
  ...sequenceProperties,
  ...narrowStateProperties,
  ...deferredTokenProperties,
  ...compositionProperties,
  ...productProperties,
  ...recordingProperties,
  ...valueProperties,
  ...markovProperties,
];
