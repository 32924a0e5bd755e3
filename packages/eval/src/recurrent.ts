// Layer: eval. A language model with recurrent state as one that tasks can ask: requests sorted by length into batches, and
// the state after a context computed once for all of its continuations.
// Knows models, their prompt states and tokenizers. Knows no task.
import { complete, type MambaLM, PlainVocabulary, PromptState, prefill } from "@diffmamba/models";
import { IGNORE_INDEX, noGrad, scope, softmaxCrossEntropy, type Tensor } from "@diffmamba/tensor";
import type { TokenStream } from "@diffmamba/tokenizer";
import { carried } from "./carried.js";
import { encodePair, firstToken, type TextTokens } from "./continuation.js";
import { EvaluationError } from "./evaluate.js";
import type {
  Answer,
  CallOptions,
  ContinuationRequest,
  ContinuationScore,
  EvaluatedModel,
  GenerationRequest,
} from "./model.js";

export interface RecurrentOptions {
  /** Rows at once; 16 by default. */
  readonly batchSize?: number;
  /** Continuations of one context go on from one state; true by default. False reads the context for each. */
  readonly shareContext?: boolean;
  /** Before a text without a context; by default the tokenizer's token of a text's beginning, or else of its end. */
  readonly prefixToken?: number;
  /** Tokens of a row read at a time, which bounds the memory; 512 by default. */
  readonly pieceLength?: number;
}

/** What is needed of a tokenizer: every tokenizer of @diffmamba/tokenizer has it. */
export interface ModelText extends TextTokens {
  stream(): TokenStream;
}

/** One continuation on its way. */
interface Item {
  readonly index: number;
  /** All of the context but its last token. */
  readonly before: Int32Array;
  /** The context's last token, then the continuation without its last. */
  readonly tokens: Int32Array;
  /** The continuation. */
  readonly targets: Int32Array;
}

/** Positions whose logits are held at a time. */
const headPositions = 256;

/** A context with all that goes on from it. */
interface Group {
  readonly before: Int32Array;
  readonly items: Item[];
}

function groupItems(items: readonly Item[], share: boolean): Group[] {
  const groups = new Map<string | number, Group>();
  for (const item of items) {
    const key = share ? item.before.join(" ") : item.index;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { before: item.before, items: [item] });
    else group.items.push(item);
  }
  return [...groups.values()];
}

/** Parts of at most `size`. */
function* parts<T>(list: readonly T[], size: number): Generator<readonly T[]> {
  for (let at = 0; at < list.length; at += size) yield list.slice(at, at + size);
}

/** Lets timers, signals and page events through. */
const breathe = () => new Promise<void>((resolve) => setTimeout(resolve));

/** `map`, with a turn for the event loop now and then. @throws the signal's reason */
async function inTurns<T, R>(
  list: readonly T[],
  signal: AbortSignal | undefined,
  change: (one: T, index: number) => R,
): Promise<R[]> {
  const changed: R[] = [];
  for (const [index, one] of list.entries()) {
    changed.push(change(one, index));
    if (index % 256 < 255) continue;
    await breathe();
    signal?.throwIfAborted();
  }
  return changed;
}

/** Longest first: what does not fit into memory is known at once. A stable order, so that the same requests make the same batches. */
const byLength = <T>(list: readonly T[], length: (one: T) => number): T[] =>
  [...list].sort((a, b) => length(b) - length(a));

/**
 * A model and its tokenizer, to be asked by tasks. The model runs in evaluation mode, and is left in the mode that it was in.
 * @throws RangeError where an option is no whole number above 0; the calls: RequestError for what has no tokens, EvaluationError where
 * a likelihood is not a number
 */
export function recurrentModel(model: MambaLM, tokenizer: ModelText, options: RecurrentOptions = {}): EvaluatedModel {
  const { batchSize = 16, shareContext = true, prefixToken, pieceLength = 512 } = options;
  for (const [name, value] of Object.entries({ batchSize, pieceLength })) {
    if (!(Number.isSafeInteger(value) && value >= 1)) {
      throw new RangeError(`recurrentModel: "${name}" wants a whole number above 0, got ${value}`);
    }
  }

  /** Runs in evaluation mode, batch after batch; answers are handed on as they come. */
  async function answering<T>(
    count: number,
    batches: () => AsyncIterable<readonly Answer<T>[]>,
    { signal, onAnswers }: CallOptions<T>,
  ): Promise<T[]> {
    const results = new Array<T>(count);
    const { training } = model;
    model.train(false);
    try {
      signal?.throwIfAborted();
      for await (const answers of batches()) {
        for (const { index, result } of answers) results[index] = result;
        await onAnswers?.(answers);
        await breathe();
        signal?.throwIfAborted();
      }
    } finally {
      model.train(training);
    }
    return results;
  }

  /** The state after each context, a row each. Contexts without a token are a batch of their own. */
  async function stateAfter(contexts: readonly Int32Array[], signal: AbortSignal | undefined): Promise<PromptState> {
    if (contexts[0].length === 0) return PromptState.empty(model, contexts.length);
    return prefill(model, contexts, { pieceLength, ...(signal && { signal }) });
  }

  /** Requests as tokens. */
  function encoded(requests: readonly ContinuationRequest[], signal: AbortSignal | undefined): Promise<Item[]> {
    // The continuations of a context mostly come one after another: its tokens are made once.
    let last: { readonly text: string; readonly ids: Int32Array } = { text: "", ids: new Int32Array() };
    const encodeContext = (text: string): Int32Array => {
      if (text !== last.text) last = { text, ids: tokenizer.encode(text) };
      return last.ids;
    };
    return inTurns(requests, signal, (request, index): Item => {
      const { context, continuation } = encodePair(tokenizer, request, prefixToken, encodeContext);
      const tokens = new Int32Array(continuation.length);
      tokens[0] = context[context.length - 1];
      tokens.set(continuation.subarray(0, -1), 1);
      return { index, before: context.subarray(0, -1), tokens, targets: continuation };
    });
  }

  async function* continuations(requests: readonly ContinuationRequest[], signal: AbortSignal | undefined) {
    const groups = groupItems(await encoded(requests, signal), shareContext);
    const sorted = byLength(groups, ({ before }) => before.length);
    const empty = sorted.filter(({ before }) => before.length === 0);
    const rest = sorted.filter(({ before }) => before.length > 0);
    for (const batch of [...parts(rest, batchSize), ...parts(empty, batchSize)]) {
      using state = await stateAfter(
        batch.map(({ before }) => before),
        signal,
      );
      const items = batch.flatMap((group, row) => group.items.map((item) => ({ item, row })));
      for (const part of parts(
        byLength(items, ({ item }) => item.tokens.length),
        batchSize,
      )) {
        using rows = state.slice(part.map(({ row }) => row));
        yield await scoreRows(
          model,
          rows,
          part.map(({ item }) => item),
        );
      }
    }
  }

  async function* rolling(texts: readonly string[], signal: AbortSignal | undefined) {
    const rows = await inTurns(texts, signal, (text, index) => ({ index, ids: tokenizer.encode(text) }));
    for (const batch of parts(
      byLength(rows, ({ ids }) => ids.length),
      batchSize,
    )) {
      const sums = new Float64Array(batch.length);
      const reading = carried(model).begin(batch.length);
      try {
        for (let start = 0; start < batch[0].ids.length; start += pieceLength) {
          const length = Math.min(pieceLength, batch[0].ids.length - start);
          const tokens = new Int32Array(batch.length * length);
          const targets = new Int32Array(batch.length * length).fill(IGNORE_INDEX);
          for (const [row, { ids }] of batch.entries()) {
            const own = ids.subarray(start, start + length);
            targets.set(own, row * length);
            // Each token is read one place after it was a target.
            tokens[row * length] = start === 0 ? firstToken(tokenizer, prefixToken) : (ids[start - 1] ?? 0);
            if (own.length > 1) tokens.set(own.subarray(0, -1), row * length + 1);
          }
          const losses = await reading.next(tokens, targets, length);
          signal?.throwIfAborted();
          for (let i = 0; i < losses.length; i++) sums[Math.floor(i / length)] -= losses[i];
        }
      } finally {
        reading.dispose();
      }
      yield batch.map(({ index }, row) => ({ index, result: sums[row] }));
    }
  }

  async function* generations(requests: readonly GenerationRequest[], signal: AbortSignal | undefined) {
    const { eos } = tokenizer.specialTokens;
    const items = await inTurns(requests, signal, (request, index) => {
      const ids = tokenizer.encode(request.context);
      return { index, request, ids: ids.length > 0 ? ids : Int32Array.of(firstToken(tokenizer, prefixToken)) };
    });
    // Only what is generated in the same way can share a batch.
    const kinds = new Map<string, typeof items>();
    for (const item of items) {
      const { context: _, seed: __, ...kind } = item.request;
      const key = JSON.stringify(kind);
      const same = kinds.get(key);
      if (same === undefined) kinds.set(key, [item]);
      else same.push(item);
    }
    for (const kind of kinds.values()) {
      const { until, maxTokens, temperature } = kind[0].request;
      for (const batch of parts(
        byLength(kind, ({ ids }) => ids.length),
        batchSize,
      )) {
        const completions = await complete(
          model,
          batch.map(({ ids }) => ids),
          {
            maxTokens,
            temperature,
            seed: batch.map(({ request }) => request.seed),
            stop: until,
            decode: () => tokenizer.stream(),
            ...(eos !== undefined && { eos }),
            ...(signal && { signal }),
          },
        );
        yield batch.map(({ index }, row) => ({ index, result: completions[row].text ?? "" }));
      }
    }
  }

  return {
    loglikelihood: (requests, call = {}) =>
      answering(requests.length, () => continuations(requests, call.signal), call),
    loglikelihoodRolling: (texts, call = {}) => answering(texts.length, () => rolling(texts, call.signal), call),
    generateUntil: (requests, call = {}) => answering(requests.length, () => generations(requests, call.signal), call),
  };
}

/** Scores continuations that go on from the rows of a state; the shorter are padded on the right, where nothing is counted. */
async function scoreRows(model: MambaLM, state: PromptState, items: readonly Item[]) {
  const length = Math.max(...items.map(({ tokens }) => tokens.length));
  const flat = new Int32Array(items.length * length);
  const places: number[] = [];
  const targets: number[] = [];
  for (const [row, item] of items.entries()) {
    flat.set(item.tokens, row * length);
    for (const [i, target] of item.targets.entries()) {
      places.push(row * length + i);
      targets.push(target);
    }
  }
  const { device, vocabulary } = model;
  using hidden = noGrad(() =>
    scope(() => {
      const tokens = device.from(flat, [items.length, length], "i32");
      const { hidden } = model.run(tokens, { initialState: state.state });
      return hidden.reshape(items.length * length, -1);
    }),
  );
  const nats: number[] = [];
  const best: number[] = [];
  for (let at = 0; at < places.length; at += headPositions) {
    const wanted = targets.slice(at, at + headPositions);
    const { losses, tops } = noGrad(() =>
      scope((): { losses: Tensor; tops: Tensor } => {
        const own = hidden.gather(device.from(places.slice(at, at + headPositions), [wanted.length], "i32"));
        const target = device.from(wanted, [wanted.length], "i32");
        const logits = vocabulary.logits(own);
        const losses =
          vocabulary instanceof PlainVocabulary
            ? softmaxCrossEntropy(logits, target, { reduction: "none" })
            : vocabulary.loss(own, target, { reduction: "none" });
        return { losses, tops: logits.argmax() };
      }),
    );
    using _losses = losses;
    using _tops = tops;
    nats.push(...(await losses.data()));
    best.push(...(await tops.data()));
  }
  let at = 0;
  return items.map(({ index, targets: own }): Answer<ContinuationScore> => {
    let [logLikelihood, greedy] = [0, true];
    for (const target of own) {
      logLikelihood -= nats[at];
      greedy &&= best[at] === target;
      at++;
    }
    if (!Number.isFinite(logLikelihood)) {
      throw new EvaluationError(`request ${index}: the model's log-likelihood is ${logLikelihood}.`);
    }
    return { index, result: { logLikelihood, greedy } };
  });
}
