// Layer: CUDA kernels. How the Mamba-2 scan is cut: which kernels a type, a state size and a device get, tokens of a tile, heads and
// columns of a block, and their shared memory. Knows native/kernels/ssd*.cuh by its sizes. Launches nothing.

import { BackendError, bytesPerElement, type DType, type SsdInputs, type SsdOptions } from "@diffmamba/tensor";
import type { DeviceProperties } from "../context.js";

/** The largest state that the kernels have room for. */
export const MOST_STATES = 256;
/** Up to so many tokens are taken one after the other, without tiles. */
export const STEP_TOKENS = 8;

export interface SsdPlan {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headDim: number;
  readonly dState: number;
  readonly groups: number;
  readonly chunks: number;
  /** Q, tokens of a tile and columns of a block: 64, or 32 where shared memory is short or elements are wide. */
  readonly tile: number;
  /** N, filled up to what a kernel is compiled for. */
  readonly padded: number;
  readonly tilesPerChunk: number;
  readonly tiles: number;
  readonly blocks: number;
  readonly blocksPerHead: number;
  readonly headsPerBlock: number;
  readonly threads: number;
  readonly forwardShared: number;
  readonly backwardShared: number;
  /** The structure SsdSizes. */
  readonly sizes: readonly number[];
}

/** sizeof(SsdForwardShared) */
export function forwardShared(elementBytes: number, padded: number, tile: number): number {
  const elements = 4 * tile * (padded + 8) + 3 * tile * (tile + 8);
  return elements * elementBytes + 4 * ((5 * tile * tile) / 16 + tile + 2 * tile);
}

/** sizeof(SsdBackwardShared) and, for each head of a block, sizeof(SsdBackwardHead). */
export function backwardShared(elementBytes: number, padded: number, tile: number, heads: number): number {
  const strips = tile / 16;
  const elements = 4 * tile * (padded + 8) + 4 * tile * (tile + 8);
  const once = elements * elementBytes + 4 * (tile + 2 * strips + 2 * strips * tile + tile);
  return Math.ceil(once / 16) * 16 + 4 * heads * tile * (8 + strips);
}

/** The heads of a block where several fit into its columns and lie in one group, else 1. */
function headsOfBlock(tile: number, headDim: number, headsPerGroup: number): number {
  const several = tile / headDim;
  return headDim % 16 === 0 && Number.isInteger(several) && headsPerGroup % several === 0 ? several : 1;
}

/** @throws BackendError where a state is too large for the kernels, or the device's shared memory too small for them */
export function ssdPlan(
  { x, B }: Pick<SsdInputs, "x" | "B">,
  { chunkSize }: Pick<SsdOptions, "chunkSize">,
  device: Pick<DeviceProperties, "sharedPerBlock">,
): SsdPlan {
  const [batch, length, heads, headDim] = x.shape;
  const [, , groups, dState] = B.shape;
  if (dState > MOST_STATES) {
    throw new BackendError(
      `cuda: ssdScan: B has ${dState} states a group; there are kernels for up to ${MOST_STATES}.`,
    );
  }
  for (const tile of x.dtype === "f32" ? [32] : [64, 32]) {
    const padded = paddedStates(x.dtype, dState, tile);
    const headsPerBlock = headsOfBlock(tile, headDim, heads / groups);
    const forward = forwardShared(bytesPerElement[x.dtype], padded, tile);
    const backward = backwardShared(bytesPerElement[x.dtype], padded, tile, headsPerBlock);
    if (Math.max(forward, backward) > device.sharedPerBlock) continue;
    const chunks = Math.ceil(length / chunkSize);
    const tilesPerChunk = Math.ceil(Math.min(chunkSize, length) / tile);
    const blocksPerHead = headsPerBlock > 1 ? 1 : Math.ceil(headDim / tile);
    return {
      batch,
      length,
      heads,
      headDim,
      dState,
      groups,
      chunks,
      tile,
      padded,
      tilesPerChunk,
      tiles: chunks * tilesPerChunk,
      blocks: (heads / headsPerBlock) * blocksPerHead,
      blocksPerHead,
      headsPerBlock,
      threads: 4 * tile,
      forwardShared: forward,
      backwardShared: backward,
      sizes: [length, heads, headDim, dState, groups, chunkSize, chunks, tilesPerChunk, headsPerBlock, blocksPerHead],
    };
  }
  throw new BackendError(
    `cuda: ssdScan: ${x.dtype} with ${dState} states a group needs more shared memory than this device's ` +
      `${device.sharedPerBlock} bytes a block; take a smaller dState or a 16-bit type.`,
  );
}

/** N as the kernels are compiled for it; see the lists in ssd_forward.cu and ssd_backward.cu. */
function paddedStates(dtype: DType, dState: number, tile: number): number {
  const least = dtype !== "f32" && tile === 32 ? 128 : 64;
  return [64, 128, 256].find((size) => size >= dState && size >= least) ?? MOST_STATES;
}
