// Generation: tokens that follow a prompt, streamed as they are drawn.
// Knows the state after a prompt, the sampler and the stop filter. Knows no tokenizer: text comes through a callback.

import type { StateDType } from "@diffmamba/ssm";
import { ValueError } from "@diffmamba/tensor";
import { DeviceDecoder, drawsOnDevice, type PendingDraws } from "./decode.js";
import { macrotask } from "./macrotask.js";
import type { MambaLM } from "./model.js";
import { checkStateDType, type PrefillOptions, type Prompt, prefill, promptRows, readTokens } from "./prefill.js";
import { PromptState, type TokenRows } from "./promptState.js";
import { checkSampling, type Draw, Sampler, type SamplingOptions } from "./sampling.js";
import { StopFilter } from "./stopStrings.js";

/** Text from the tokens of one row as they come, such as a tokenizer's stream. The pieces joined are the row's text. */
export interface TokenDecoder {
  /** The text that this token completes; "" where it ends inside a character. */
  push(token: number): string;
  /** What is left. */
  end(): string;
}

export interface GenerateOptions extends SamplingOptions {
  /** New tokens a row, at most; 256 by default. Infinity for no limit. */
  readonly maxTokens?: number;
  /**
   * Row i draws with seed + i, or with its own of a list: what a row draws depends on its seed and its tokens alone, not
   * on the rows beside it or on where generation was begun. 0 by default.
   */
  readonly seed?: number | readonly number[];
  /** Tokens that end a row. They are among its tokens, but not in its text. */
  readonly eos?: number | readonly number[];
  /** A decoder for each row, as in `() => tokenizer.stream()`. Without it there is no text. */
  readonly decode?: () => TokenDecoder;
  /** Strings that end a row where they first appear. Neither they nor a part of them are in the text. Needs `decode`. */
  readonly stop?: string | readonly string[];
  /** Give the log-probability of each token by the model itself, before temperature and the filters. */
  readonly logprobs?: boolean;
  /** Looked at before each token: once aborted, the next one is not drawn and `signal.reason` is thrown. */
  readonly signal?: AbortSignal;
  /**
   * Leave a prompt state that was given alive: it then stands after every token that came, ready to be gone on from,
   * however the generation ended. By default it is disposed of.
   */
  readonly keep?: boolean;
  /**
   * Draw the tokens on the device, in steps that are recorded and replayed where the backend can: only tokens are read back. The same
   * tokens as otherwise, but for rounding. By default where the backend prefers recordings. Without effect with a repetition
   * penalty, with `keep` for several rows, and where the backend cannot draw.
   */
  readonly onDevice?: boolean;
  /**
   * What the states of the scans are kept in between tokens: see {@link StateDType}. "f32" by default; a prompt state that was given has
   * its own.
   */
  readonly stateDtype?: StateDType;
}

/** Why a row has ended: at an end token, at a stop string, or at `maxTokens`. */
export type FinishReason = "eos" | "stop" | "length";

/** One new token in each row that goes on. */
export interface GenerateStep {
  /** From 0. */
  readonly step: number;
  /** The token of each row; -1 in a row that had ended before. */
  readonly tokens: readonly number[];
  /** With `decode`: the text of each row that is certain by now; "" where there is none. */
  readonly text?: readonly string[];
  /** With `logprobs`: nats, of each token; 0 in a row that had ended before. */
  readonly logprobs?: readonly number[];
  /** Why each row has ended; undefined while it goes on. */
  readonly finished: readonly (FinishReason | undefined)[];
}

/** What followed in one row. */
export interface Completion {
  readonly tokens: readonly number[];
  readonly text?: string;
  readonly logprobs?: readonly number[];
  readonly finished: FinishReason;
}

/** One row on its way. */
class Row {
  readonly sampler: Sampler;
  readonly seen: Set<number>;
  readonly filter: StopFilter;
  readonly decoder: TokenDecoder | undefined;
  finished: FinishReason | undefined;

  constructor(options: GenerateOptions, seed: number, tokens: readonly number[]) {
    this.sampler = new Sampler(options, seed);
    this.seen = new Set(options.repetitionPenalty === undefined ? [] : tokens);
    this.filter = new StopFilter(listOf(options.stop));
    this.decoder = options.decode?.();
  }

  /** Takes a new token in. @returns it, with the text that it makes certain */
  take({ token, logprob }: Draw, eos: readonly number[], isLast: boolean): Taken {
    this.seen.add(token);
    const ended = eos.includes(token);
    let text = ended ? "" : this.filter.push(this.decoder?.push(token) ?? "");
    this.finished = ended ? "eos" : isLast ? "length" : undefined;
    if (this.finished !== undefined) text += this.filter.push(this.decoder?.end() ?? "") + this.filter.end();
    if (this.filter.stopped !== undefined) this.finished = "stop";
    return { token, logprob, text };
  }
}

function listOf<T>(value: T | readonly T[] | undefined): readonly T[] {
  return value === undefined ? [] : Array.isArray(value) ? value : [value as T];
}

/** @throws ValueError naming the option */
function check(model: MambaLM, batch: number, prompt: Prompt | PromptState, options: GenerateOptions): void {
  const { maxTokens = 256, eos, stop, decode, seed = 0, keep = false } = options;
  checkSampling(options);
  if (!(maxTokens >= 1 && (Number.isInteger(maxTokens) || maxTokens === Number.POSITIVE_INFINITY))) {
    throw new ValueError(`generate: maxTokens is ${maxTokens}; it must be a whole number of at least 1, or Infinity.`);
  }
  const { vocabSize } = model.config;
  const wrong = listOf(eos).find((token) => !(Number.isInteger(token) && token >= 0 && token < vocabSize));
  if (wrong !== undefined) {
    throw new ValueError(`generate: the end token ${wrong} is outside the vocabulary of ${vocabSize}.`);
  }
  const stops = listOf(stop);
  if (stops.includes(""))
    throw new ValueError("generate: a stop string is empty; it would stop before the first token.");
  if (stops.length > 0 && decode === undefined) {
    throw new ValueError("generate: stop strings need `decode`, which makes text of tokens.");
  }
  if (typeof seed !== "number" && seed.length !== batch) {
    throw new ValueError(`generate: there are ${seed.length} seeds for ${batch} rows; give one a row, or a number.`);
  }
  checkStateDType("generate", options.stateDtype);
  if (options.stateDtype !== undefined && prompt instanceof PromptState) {
    throw new ValueError("generate: stateDtype is for tokens; a prompt state has its own. Give it to prefill.");
  }
  if (keep && !(prompt instanceof PromptState)) {
    throw new ValueError("generate: keep is for a prompt state; tokens leave nothing behind. Make one with prefill.");
  }
}

/** Of the options what a prompt is read with. */
function prefillOptions({ signal, stateDtype }: GenerateOptions): PrefillOptions {
  return { ...(signal && { signal }), ...(stateDtype && { stateDtype }) };
}

/**
 * The tokens that follow a prompt, one a row and step, until every row has ended.
 *
 * The prompt is token numbers (one row, or rows of any lengths), or the state after them. From the first `next` on a
 * state belongs to the iteration: it is advanced in place, and disposed of at the end, however that comes (a `break`, an
 * abort, an error). Give `state.clone()` to use it again, or set `keep`.
 *
 * Every row of a batch gets the tokens that it would get alone, but for rounding. Dropout does not act. Between two
 * tokens the event loop has a turn. Nothing else waits but the reading of the logits.
 *
 * @throws ValueError at once for options and prompts that cannot be; later where logits are not numbers
 * @example for await (const { text } of generate(model, ids, { decode: () => tokenizer.stream() })) show(text[0]);
 */
export function generate(
  model: MambaLM,
  prompt: Prompt | PromptState,
  options: GenerateOptions = {},
): AsyncGenerator<GenerateStep, void, undefined> {
  const rows = prompt instanceof PromptState ? undefined : promptRows(model, prompt);
  const tokens = prompt instanceof PromptState ? prompt.tokens : (rows as TokenRows);
  check(model, tokens.length, prompt, options);
  const { seed = 0 } = options;
  const seeds = tokens.map((_, i) => (typeof seed === "number" ? seed + i : seed[i]));
  const own = tokens.map((row, i) => new Row(options, seeds[i], row));
  const begin = prompt instanceof PromptState ? prompt : (rows as TokenRows);
  const { keep = false, onDevice = Boolean(model.device.backend.prefersRecording) } = options;
  const possible = drawsOnDevice(model, options) && !(keep && tokens.length > 1);
  return onDevice && possible ? deviceSteps(model, begin, own, options, seeds) : steps(model, begin, own, options);
}

/** A new token of a row as it goes into a step's result. */
interface Taken extends Draw {
  readonly text: string;
}

function stepOf(step: number, taken: readonly Taken[], rows: readonly Row[], options: GenerateOptions): GenerateStep {
  return {
    step,
    tokens: taken.map(({ token }) => token),
    ...(options.decode && { text: taken.map(({ text }) => text) }),
    ...(options.logprobs && { logprobs: taken.map(({ logprob }) => logprob) }),
    finished: rows.map(({ finished }) => finished),
  };
}

const nothingTaken: Taken = { token: -1, logprob: 0, text: "" };

/** {@link generate} with tokens drawn on the device: each step is ordered before the tokens of the one before are read. */
async function* deviceSteps(
  model: MambaLM,
  prompt: TokenRows | PromptState,
  rows: readonly Row[],
  options: GenerateOptions,
  seeds: readonly number[],
): AsyncGenerator<GenerateStep, void, undefined> {
  const { maxTokens = 256, signal, keep = false } = options;
  const eos = listOf(options.eos);
  const { training } = model;
  const state = prompt instanceof PromptState ? prompt : await prefill(model, prompt, prefillOptions(options));
  let decoder: DeviceDecoder | undefined;
  let pending: PendingDraws | undefined;
  let unread: TokenRows = [];
  try {
    if (training) model.eval();
    decoder = new DeviceDecoder(model, state, options, seeds);
    for (let step = 0; rows.some(({ finished }) => finished === undefined); step++) {
      await macrotask();
      signal?.throwIfAborted();
      const drawn: PendingDraws = pending ?? (step === 0 ? decoder.first() : decoder.next());
      pending = undefined;
      if (unread.length > 0) state.wasRead(unread);
      unread = [];
      // Ordered before the next step, and not waiting for it: the device goes on while the host takes the tokens in.
      const reading = drawn.read();
      // Where the next step cannot be ordered, that is the error, and nobody waits for this one.
      reading.catch(() => undefined);
      // A state that is kept must not run ahead of what has come.
      if (!keep && step + 1 < maxTokens) pending = decoder.next();
      const taken = (await reading).map((draw, i): Taken => {
        const row = rows[i];
        if (row.finished !== undefined) return nothingTaken;
        return row.take(draw, eos, step + 1 >= maxTokens);
      });
      unread = taken.map(({ token }) => (token < 0 ? [] : [token]));
      yield stepOf(step, taken, rows, options);
    }
  } finally {
    pending?.dispose();
    decoder?.dispose();
    if (!keep) state.dispose();
    else if (unread.length > 0) readTokens(model, state, unread);
    if (training) model.train();
  }
}

async function* steps(
  model: MambaLM,
  prompt: TokenRows | PromptState,
  rows: readonly Row[],
  options: GenerateOptions,
): AsyncGenerator<GenerateStep, void, undefined> {
  const { maxTokens = 256, signal, keep = false } = options;
  const eos = listOf(options.eos);
  const state = prompt instanceof PromptState ? prompt : await prefill(model, prompt, prefillOptions(options));
  /** Tokens that came and are still to be read. */
  let unread: TokenRows = [];
  const read = () => {
    if (unread.length > 0) readTokens(model, state, unread);
    unread = [];
  };
  try {
    for (let step = 0; rows.some(({ finished }) => finished === undefined); step++) {
      await macrotask();
      signal?.throwIfAborted();
      read();
      const logits = await state.logits.data();
      const { lengths } = state;
      const width = model.config.vocabSize;
      const taken = rows.map((row, i): Taken => {
        if (row.finished !== undefined) return nothingTaken;
        const own = logits.subarray(i * width, (i + 1) * width);
        const draw = row.sampler.draw(own, row.seen, lengths[i]);
        return row.take(draw, eos, step + 1 >= maxTokens);
      });
      unread = taken.map(({ token }) => (token < 0 ? [] : [token]));
      yield stepOf(step, taken, rows, options);
    }
  } finally {
    if (keep) read();
    else state.dispose();
  }
}

/** All that follows a prompt, row by row: {@link generate} to its end. */
export async function complete(
  model: MambaLM,
  prompt: Prompt | PromptState,
  options: GenerateOptions = {},
): Promise<Completion[]> {
  const rows: { tokens: number[]; text: string; logprobs: number[]; finished?: FinishReason }[] = [];
  for await (const { tokens, text, logprobs, finished } of generate(model, prompt, options)) {
    for (const [i, token] of tokens.entries()) {
      rows[i] ??= { tokens: [], text: "", logprobs: [] };
      if (token < 0) continue;
      rows[i].tokens.push(token);
      rows[i].text += text?.[i] ?? "";
      if (logprobs !== undefined) rows[i].logprobs.push(logprobs[i]);
      if (finished[i] !== undefined) rows[i].finished = finished[i];
    }
  }
  return rows.map(({ tokens, text, logprobs, finished = "length" }) => {
    return { tokens, ...(options.decode && { text }), ...(options.logprobs && { logprobs }), finished };
  });
}
