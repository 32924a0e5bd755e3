// Reading tokens into a state: a prompt in pieces, so that its length costs time but no memory, or one token a row.
// Knows the model's run and its head. Knows no sampling and no text.

import { replaceState, type StateDType, stepOptions } from "@diffmamba/ssm";
import { noGrad, scope, ValueError } from "@diffmamba/tensor";
import { macrotask } from "./macrotask.js";
import type { MambaLM } from "./model.js";
import { PromptState, type TokenRows } from "./promptState.js";

/** Token numbers: one row, or several of any lengths. */
export type Prompt = ArrayLike<number> | readonly ArrayLike<number>[];

export interface PrefillOptions {
  /** Ends the reading between two pieces: then `signal.reason` is thrown. */
  readonly signal?: AbortSignal;
  /** Tokens of a row read at a time, which bounds the memory; 512 by default. */
  readonly pieceLength?: number;
  /** What the states of the scans are kept in between tokens: see {@link StateDType}. "f32" by default. */
  readonly stateDtype?: StateDType;
}

/** @throws ValueError unless it is one of those there are */
export function checkStateDType(op: string, dtype: StateDType | undefined): void {
  if (dtype === undefined || dtype === "f32" || dtype === "bf16" || dtype === "f16") return;
  throw new ValueError(`${op}: stateDtype is ${dtype}; it must be "f32", "bf16" or "f16".`);
}

function isBatch(prompt: Prompt): prompt is readonly ArrayLike<number>[] {
  return Array.isArray(prompt) && prompt.length > 0 && typeof prompt[0] !== "number";
}

/** The rows of a prompt. @throws ValueError for an empty one, and for a token outside the vocabulary */
export function promptRows(model: MambaLM, prompt: Prompt): TokenRows {
  const rows = (isBatch(prompt) ? prompt : [prompt]).map((row) => Array.from(row));
  const { vocabSize } = model.config;
  for (const [i, row] of rows.entries()) {
    const place = rows.length === 1 ? "the prompt" : `row ${i} of the prompt`;
    if (row.length === 0) {
      throw new ValueError(`${place} is empty; a model needs a token to begin with, such as the end of a text.`);
    }
    const at = row.findIndex((token) => !(Number.isInteger(token) && token >= 0 && token < vocabSize));
    if (at >= 0) {
      throw new ValueError(
        `${place}: token ${row[at]} at position ${at} is outside the vocabulary of ${vocabSize}, 0 to ${vocabSize - 1}.`,
      );
    }
  }
  return rows;
}

/**
 * Reads a prompt: the state after it and the logits of what follows. The caller owns the value.
 * @throws ValueError for an empty prompt, and for a token outside the vocabulary; DTypeError where the device lacks `stateDtype`
 */
export async function prefill(model: MambaLM, prompt: Prompt, options: PrefillOptions = {}): Promise<PromptState> {
  const rows = promptRows(model, prompt);
  checkStateDType("prefill", options.stateDtype);
  const state = PromptState.empty(model, rows.length, options.stateDtype);
  try {
    await extend(model, state, rows, options);
  } catch (error) {
    state.dispose();
    throw error;
  }
  return state;
}

/**
 * Goes on reading, in place: each row of the prompt after what that row of the state has read already. An abort leaves
 * the state between two pieces, which its `tokens` tell.
 * @throws ValueError as {@link prefill}, and where the numbers of rows differ
 */
export async function extend(
  model: MambaLM,
  state: PromptState,
  prompt: Prompt,
  { signal, pieceLength = 512 }: Omit<PrefillOptions, "stateDtype"> = {},
): Promise<void> {
  const rows = promptRows(model, prompt);
  if (rows.length !== state.batch) {
    throw new ValueError(`extend: the prompt has ${rows.length} rows, the state ${state.batch}; they must agree.`);
  }
  if (!(Number.isInteger(pieceLength) && pieceLength >= 1)) {
    throw new ValueError(`prefill: pieceLength is ${pieceLength}; it must be a whole number of at least 1.`);
  }
  const longest = Math.max(...rows.map(({ length }) => length));
  for (let start = 0; start < longest; start += pieceLength) {
    signal?.throwIfAborted();
    readTokens(
      model,
      state,
      rows.map((row) => row.slice(start, start + pieceLength)),
    );
    if (start + pieceLength < longest) await macrotask();
  }
}

/**
 * Reads at least one token into at least one row, in place; a row with none stays as it is. Shorter rows are padded on
 * the right. Nothing is read back, and dropout does not act.
 */
export function readTokens(model: MambaLM, state: PromptState, rows: TokenRows): void {
  const { device } = model;
  const batch = rows.length;
  const length = Math.max(...rows.map((row) => row.length));
  const flat = new Int32Array(batch * length);
  for (const [i, row] of rows.entries()) flat.set(row, i * length);
  const ragged = rows.some((row) => row.length < length);
  evaluating(model, () =>
    scope(() => {
      const counts = device.from(
        Int32Array.from(rows, (row) => row.length),
        [batch],
        "i32",
      );
      const tokens = device.from(flat, [batch, length], "i32");
      const options = { ...stepOptions(tokens), ...(ragged && { lengths: counts }) };
      const result = model.run(tokens, { ...options, initialState: state.state });
      for (const [i, mixer] of state.state.entries()) replaceState(mixer, result.state[i]);
      const { hidden } = result;
      const starts = device.arange(batch).mul(length);
      // A row without tokens gets some other row's vector here, and keeps its logits below.
      const last = hidden.reshape(batch * length, hidden.dim(-1)).gather(starts.add(counts.maximum(1)).sub(1));
      if (rows.every((row) => row.length > 0)) {
        model.vocabulary.logitsInto(last, state.logits);
      } else {
        const logits = device.empty(state.logits.shape, state.logits.dtype);
        model.vocabulary.logitsInto(last, logits);
        state.logits.assign(counts.equal(0).reshape(batch, 1).where(state.logits, logits));
      }
    }),
  );
  state.wasRead(rows);
}

/** Runs `compute` in evaluation mode and outside any tape. */
function evaluating(model: MambaLM, compute: () => void): void {
  const { training } = model;
  if (training) model.eval();
  try {
    noGrad(compute);
  } finally {
    if (training) model.train();
  }
}
