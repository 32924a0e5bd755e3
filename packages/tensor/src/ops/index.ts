// The list of all ops, for the conformance suite and for documentation.
// Knows that ops have specs. Knows no op.

import type { OpSpec } from "../op.js";
import * as adamw from "./adamw.js";
import * as addRmsNorm from "./addRmsNorm.js";
import * as causalConv1d from "./causalConv1d.js";
import * as copy from "./copy.js";
import * as elementwise from "./elementwise.js";
import * as indexing from "./indexing.js";
import * as linearCrossEntropy from "./linearCrossEntropy.js";
import * as matmul from "./matmul.js";
import * as norms from "./norms.js";
import * as random from "./random.js";
import * as reduce from "./reduce.js";
import * as sample from "./sample.js";
import * as selectiveScan from "./selectiveScan.js";
import * as softmaxCrossEntropy from "./softmaxCrossEntropy.js";
import * as ssdScan from "./ssdScan.js";
import * as views from "./views.js";

const files = [
  elementwise,
  reduce,
  matmul,
  indexing,
  copy,
  views,
  random,
  causalConv1d,
  selectiveScan,
  ssdScan,
  norms,
  addRmsNorm,
  softmaxCrossEntropy,
  linearCrossEntropy,
  adamw,
  sample,
];

/** Every op there is. `ssdDeferred` is none of its own: it is another way to compute `ssdScan`, which a backend may lack. */
export const opSpecs: readonly OpSpec[] = files.flatMap((file) => [...file.specs]);
