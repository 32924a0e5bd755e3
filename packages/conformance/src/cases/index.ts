// Layer: conformance. All cases of all ops, and the ops that have none.
// Knows the lists of cases. Knows no case.

import type { OpSpec } from "@diffmamba/tensor";
import { optimizerCases } from "./adamw.js";
import type { OpCase } from "./case.js";
import { convCases } from "./causalConv1d.js";
import { elementwiseCases } from "./elementwise.js";
import { indexingCases } from "./indexing.js";
import { productCases } from "./matmul.js";
import { normAndLossCases } from "./norms.js";
import { reduceCases } from "./reduce.js";
import { sampleCases } from "./sample.js";
import { selectiveScanCases } from "./selectiveScan.js";
import { ssdScanCases } from "./ssdScan.js";
import { copyAndViewCases } from "./views.js";

/** Every case. */
export const opCases: readonly OpCase[] = [
  ...elementwiseCases,
  ...reduceCases,
  ...productCases,
  ...indexingCases,
  ...copyAndViewCases,
  ...convCases,
  ...selectiveScanCases,
  ...ssdScanCases,
  ...normAndLossCases,
  ...optimizerCases,
  ...sampleCases,
];

/** Names of ops without a case, of cases without an op, and of element types of an op that no case of it tests. */
export function gaps(specs: readonly OpSpec[], cases: readonly OpCase[] = opCases): string[] {
  const known = new Set(specs.map(({ name }) => name));
  const found: string[] = [];
  for (const { op, name } of cases)
    if (!known.has(op)) found.push(`there is no op ${op}, but the case "${name}" of it`);
  for (const { name, dtypes } of specs) {
    const own = cases.filter(({ op }) => op === name);
    if (own.length === 0) found.push(`${name} has no case`);
    else
      for (const type of dtypes)
        if (!own.some((test) => test.dtypes.includes(type))) found.push(`${name} has no case in ${type}`);
  }
  return found;
}
