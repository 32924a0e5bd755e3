// Layer: WebGPU kernels. How both scans cut rows into pieces of time that are worked on side by side.
// Knows sizes. Knows no formula and no shader.

/** Tokens of a piece, at most: as many as the shaders' tiles have rows. */
export const PIECE_TOKENS = 64;

/** Rows of a batch cut as lib/scan-pieces.wgsl says. */
export interface Pieces {
  /** Chunks of a row, between which states are saved. */
  readonly chunks: number;
  /** Pieces of a whole chunk, and of a row. */
  readonly per: number;
  readonly pieces: number;
  readonly uniforms: Readonly<Record<"length" | "chunk_size" | "piece_tokens" | "per" | "pieces", number>>;
}

/** @param length tokens of a row, at least 1 */
export function piecesOf(length: number, chunkSize: number): Pieces {
  const chunk = Math.min(chunkSize, length);
  const tokens = Math.min(chunkSize, PIECE_TOKENS);
  const chunks = Math.ceil(length / chunk);
  const per = Math.ceil(chunk / tokens);
  const pieces = (chunks - 1) * per + Math.ceil((length - (chunks - 1) * chunk) / tokens);
  return { chunks, per, pieces, uniforms: { length, chunk_size: chunk, piece_tokens: tokens, per, pieces } };
}
