// Layer: CUDA backend. A token's scan that keeps tokens beside the state, and the gated norm of what it gives, in one launch.
// Knows native/kernels/ssd_deferred.cu, and the order of the parameters of both.

import type { Launch } from "./context.js";
import { disjoint, type Link } from "./fuseLinks.js";
import { DEFERRED_CHANNELS, DEFERRED_THREADS } from "./kernels/ssdDeferred.js";

/** Groups of rows whose blocks are counted: kCounted of native/kernels/ssd_deferred.cuh. */
const COUNTED = 4096;

/** One launch for a scan of many rows and the gated norm of its y: the block of a row, or of a group of it, that is done last makes it. */
export function deferredNorm([scan, norm]: readonly (Link | undefined)[]):
  | { readonly launch: Launch; readonly count: number }
  | undefined {
  if (scan?.kind !== "deferred" || norm?.kind !== "norm" || !norm.launch.kernel.startsWith("gated")) return undefined;
  const [x, , , , , units, groups, size, xPitch] = norm.numbers;
  const [z, y, yPitch, heads, headDim] = [5, 13, 19, 20, 21].map((i) => scan.numbers[i]);
  const { launch, rows, type } = scan;
  const same = x === y && z === 0 && xPitch === yPitch && rows === norm.rows && type === norm.type;
  const whole = groups * size === heads * headDim && size % DEFERRED_CHANNELS === 0;
  if (!same || !whole || launch.block !== DEFERRED_THREADS || units > COUNTED) return undefined;
  // Other blocks still read and write what is theirs.
  if (!disjoint(norm.writes, [...scan.reads, ...scan.writes]) || !disjoint(norm.reads.slice(1), scan.writes)) {
    return undefined;
  }
  const kernel = launch.kernel.replace("ssd_deferred", "ssd_deferred_norm");
  return { launch: { ...launch, kernel, args: [...launch.args, ...norm.launch.args] }, count: 2 };
}
