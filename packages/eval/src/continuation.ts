// Layer: eval. From a context and its continuation to tokens, cut where lm-evaluation-harness cuts them.
// Knows tokenizers by what it needs of them. Knows no model.

/** What is needed of a tokenizer: every tokenizer of @diffmamba/tokenizer has it. */
export interface TextTokens {
  readonly specialTokens: { readonly bos?: number; readonly eos?: number };
  encode(text: string): Int32Array;
}

/** A request that no model can answer. The message shows it. */
export class RequestError extends Error {
  override readonly name = "RequestError";
}

export interface TokenPair {
  /** At least one token. */
  readonly context: Int32Array;
  /** At least one token. */
  readonly continuation: Int32Array;
}

/** The token before a text that nothing stands before. @throws RequestError where the tokenizer has none */
export function firstToken({ specialTokens: { bos, eos } }: TextTokens, given?: number): number {
  const token = given ?? bos ?? eos;
  if (token !== undefined) return token;
  throw new RequestError(
    "the tokenizer has no token of a text's beginning or end, with which to begin a text without a context; name one as prefixToken.",
  );
}

const shown = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);

/**
 * Tokens of context + continuation, cut behind as many tokens as the context has by itself. White space at the context's end goes to
 * the continuation, as tokenizers put it before the word that follows.
 * @param encodeContext the tokens of a context, for whoever knows them already
 * @throws RequestError where the continuation has no token
 */
export function encodePair(
  tokenizer: TextTokens,
  { context, continuation }: { readonly context: string; readonly continuation: string },
  prefixToken?: number,
  encodeContext: (text: string) => Int32Array = (text) => tokenizer.encode(text),
): TokenPair {
  if (context === "") {
    const tokens = tokenizer.encode(continuation);
    if (tokens.length === 0) throw new RequestError("there is neither a context nor a continuation.");
    return { context: Int32Array.of(firstToken(tokenizer, prefixToken)), continuation: tokens };
  }
  const own = encodeContext(context.trimEnd());
  const whole = tokenizer.encode(context + continuation);
  const rest = whole.subarray(own.length);
  if (rest.length === 0) {
    throw new RequestError(`the continuation ${shown(continuation)} of ${shown(context)} has no token of its own.`);
  }
  if (own.length === 0) return { context: Int32Array.of(firstToken(tokenizer, prefixToken)), continuation: rest };
  return { context: whole.subarray(0, own.length), continuation: rest };
}
