// Between the fused form of N-Diff-Mamba-2 and its two branches: both publish the same tensors, so that each is loaded
// with the other's, bit for bit.
// Knows the two forms. Knows no model.

import { Build } from "@diffmamba/nn";
import { DiffMamba2 } from "./diffMamba2.js";
import { DiffMamba2TwoBranch } from "./twoBranch.js";

/** The same mixer as two whole Mamba-2 mixers, on the same device. The caller owns it. */
export async function toTwoBranch(fused: DiffMamba2): Promise<DiffMamba2TwoBranch> {
  const { dtype } = fused.inner.inProj.weight;
  const branches = new DiffMamba2TwoBranch(fused.options, new Build({ device: fused.device, dtype }));
  branches.loadStateDict(await fused.stateDict());
  return branches;
}

/** The same mixer in its fused form, on the same device. The caller owns it. @throws RangeError where projections have biases */
export async function toFused(branches: DiffMamba2TwoBranch): Promise<DiffMamba2> {
  const { dtype } = branches.m1.inProj.weight;
  const fused = new DiffMamba2(branches.options, new Build({ device: branches.device, dtype }));
  fused.loadStateDict(await branches.stateDict());
  return fused;
}
