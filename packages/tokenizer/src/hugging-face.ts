// Layer: tokenizer. `tokenizer.json` through @huggingface/tokenizers, with a cache of words in front and exact bytes behind it.
// Knows no file: it gets parsed JSON.
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { characterBytes, spaceClass, wordPattern } from "./byte-level.js";
import { ByteStream, textDecoder, WindowStream } from "./stream.js";
import {
  type DecodeOptions,
  type EncodeOptions,
  replacement,
  type SpecialTokens,
  type Tokenizer,
  TokenizerFormatError,
  type TokenStream,
  UnknownSymbolError,
  utf8Length,
} from "./tokenizer.js";
import { spaceBefore, WordCache } from "./word-cache.js";

type JsonObject = { readonly [key: string]: unknown };

/** What `HuggingFaceTokenizer.toJSON` gives: both files, as they were. */
export interface HuggingFaceJSON {
  readonly kind: "tokenizer.json";
  readonly tokenizer: object;
  readonly config?: object;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  /** Whether it is looked for after the text has been normalized. */
  readonly normalized: boolean;
  readonly plain: boolean;
}

/** What is used of the library's model. */
interface LibraryModel {
  readonly tokens_to_ids: ReadonlyMap<string, number>;
  /** Merges each word. */
  encode(words: string[]): string[];
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function addedTokens(tokenizer: JsonObject): AddedToken[] {
  const list = Array.isArray(tokenizer.added_tokens) ? tokenizer.added_tokens.filter(isObject) : [];
  return list.map((token) => ({
    id: Number(token.id),
    content: String(token.content),
    special: token.special === true,
    normalized: token.normalized === true,
    plain: token.lstrip !== true && token.rstrip !== true && token.single_word !== true,
  }));
}

/** One past the largest id of the vocabulary and of the added tokens. */
function sizeOf(source: string, tokenizer: JsonObject, added: readonly AddedToken[]): number {
  const vocab = isObject(tokenizer.model) ? tokenizer.model.vocab : undefined;
  if (!isObject(vocab) && !Array.isArray(vocab)) {
    throw new TokenizerFormatError(source, 'it has no "model" with a "vocab": this is not a tokenizer.json');
  }
  let size = Array.isArray(vocab) ? vocab.length : 0;
  if (!Array.isArray(vocab)) for (const id of Object.values(vocab)) size = Math.max(size, Number(id) + 1);
  for (const { id } of added) size = Math.max(size, id + 1);
  if (!Number.isSafeInteger(size) || size <= 0) {
    throw new TokenizerFormatError(source, `its vocabulary has an id that is no whole number, or is empty`);
  }
  return size;
}

/** Names that say what a token is for, where no tokenizer_config.json does. */
const wellKnown: Readonly<Record<"bos" | "eos" | "pad" | "unknown", readonly string[]>> = {
  bos: ["<s>", "<bos>", "<|begin_of_text|>"],
  eos: ["<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"],
  pad: ["<pad>", "[PAD]", "<|padding|>"],
  unknown: ["<unk>", "[UNK]"],
};

/** Ids by role. A token that the configuration names but the vocabulary lacks is left out. */
function specialTokens(
  added: readonly AddedToken[],
  config: JsonObject | undefined,
  idOf: (token: string) => number | undefined,
): SpecialTokens {
  const found: { bos?: number; eos?: number; pad?: number; unknown?: number } = {};
  for (const role of ["bos", "eos", "pad", "unknown"] as const) {
    const entry = config?.[role === "unknown" ? "unk_token" : `${role}_token`];
    const name = isObject(entry) ? entry.content : entry;
    const id = typeof name === "string" ? idOf(name) : undefined;
    if (id !== undefined) found[role] = id;
    else if (!config) {
      const token = added.find(({ content, special }) => special && wellKnown[role].includes(content));
      if (token) found[role] = token.id;
    }
  }
  return found;
}

/**
 * Whether a run of white space always starts a new word, whatever stands around it: then text may be cut there and each piece
 * encoded by itself. True for byte-level pre-tokenizers with their own pattern (GPT-2, GPT-NeoX), which end a word at white space,
 * over no normalizer or NFC, which changes nothing across a space.
 */
function wordsAreIndependent(
  tokenizer: JsonObject,
  added: readonly AddedToken[],
  config: JsonObject | undefined,
): boolean {
  const { normalizer, pre_tokenizer: preTokenizer } = tokenizer;
  return (
    (normalizer === null || normalizer === undefined || (isObject(normalizer) && normalizer.type === "NFC")) &&
    isObject(preTokenizer) &&
    preTokenizer.type === "ByteLevel" &&
    preTokenizer.use_regex !== false &&
    preTokenizer.add_prefix_space !== true &&
    config?.remove_space !== true &&
    config?.do_lowercase_and_remove_accent !== true &&
    added.every(({ content, plain }) => plain && content !== "" && !innerSpace.test(content))
  );
}

/** White space behind something else: a token that holds it could lie across a place where text is cut. */
const innerSpace = new RegExp(`[^${spaceClass}][${spaceClass}]`);

/**
 * The same pre-tokenizer with white space as Unicode has it. The library's own pattern has JavaScript's, by which U+0085 and U+FEFF
 * give other tokens than the tokenizer was trained with.
 */
function exactSpaces(preTokenizer: unknown): unknown {
  if (!isObject(preTokenizer) || preTokenizer.type !== "ByteLevel" || preTokenizer.use_regex === false)
    return preTokenizer;
  if (preTokenizer.add_prefix_space === true) return preTokenizer;
  const split = { type: "Split", pattern: { Regex: wordPattern }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, { ...preTokenizer, use_regex: false }] };
}

/** How far around a cut the encodings are compared, and how many places are tried. */
const cutContext = 256;
const cutTries = 64;

export class HuggingFaceTokenizer implements Tokenizer {
  readonly kind = "tokenizer.json";
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  readonly #library: Library;
  readonly #tokenizer: JsonObject;
  readonly #config: JsonObject | undefined;
  readonly #specialIds: ReadonlySet<number>;
  /** Where words are independent of what stands around them. */
  readonly #words: WordCache | undefined;
  /** For byte-level decoders: the bytes of each id, made when first asked for. */
  readonly #bytes: (Uint8Array | undefined)[] | undefined;
  readonly #added: ReadonlyMap<number, string>;

  /**
   * @param tokenizer the parsed `tokenizer.json`
   * @param config the parsed `tokenizer_config.json`, if there is one
   * @param source where it came from, for messages
   * @throws TokenizerFormatError where it cannot be used
   */
  constructor(tokenizer: unknown, config?: unknown, source = "tokenizer.json") {
    if (!isObject(tokenizer)) throw new TokenizerFormatError(source, "it does not hold a JSON object");
    if (config !== undefined && !isObject(config)) {
      throw new TokenizerFormatError(source, "its tokenizer_config.json does not hold a JSON object");
    }
    const added = addedTokens(tokenizer);
    this.vocabSize = sizeOf(source, tokenizer, added);
    const whole = { decoder: null, post_processor: null, pre_tokenizer: null, normalizer: null, ...tokenizer };
    try {
      this.#library = new Library(
        { ...whole, pre_tokenizer: exactSpaces(whole.pre_tokenizer), added_tokens: tokenizer.added_tokens ?? [] },
        config ?? {},
      );
    } catch (error) {
      throw new TokenizerFormatError(source, `the tokenizer library refuses it: ${(error as Error).message}`, {
        cause: error,
      });
    }
    this.#tokenizer = tokenizer;
    this.#config = config;
    this.specialTokens = specialTokens(added, config, (token) => this.#library.token_to_id(token));
    this.#specialIds = new Set(added.filter(({ special }) => special).map(({ id }) => id));
    this.#added = new Map(added.map(({ id, content }) => [id, content]));
    this.#words = wordsAreIndependent(tokenizer, added, config) ? this.#wordCache(added) : undefined;
    this.#bytes = isObject(tokenizer.decoder) && tokenizer.decoder.type === "ByteLevel" ? [] : undefined;
  }

  #wordCache(added: readonly AddedToken[]): WordCache | undefined {
    const { normalizer } = this.#library;
    const model = this.#library.model as LibraryModel | null;
    if (model === null || !isObject(this.#tokenizer.model) || this.#tokenizer.model.type !== "BPE") return undefined;
    const idsOf = (normalized: boolean) =>
      new Map(
        added
          .filter((token) => (token.normalized && normalizer !== null) === normalized)
          .map(({ content, id }) => [normalized ? content.normalize("NFC") : content, id]),
      );
    const merge = (word: string): number[] => {
      const ids = model.encode([word]).map((token) => model.tokens_to_ids.get(token));
      // What a BPE without an unknown token lacks is dropped. (`filter` would leave room in arrays of which many are kept.)
      return ids.includes(undefined) ? ids.filter((id) => id !== undefined) : (ids as number[]);
    };
    return new WordCache({ before: idsOf(false), after: idsOf(true), nfc: normalizer !== null, merge });
  }

  encode(text: string, { addSpecialTokens = false }: EncodeOptions = {}): Int32Array {
    if (this.#words && !addSpecialTokens) return this.#words.encode(text);
    return Int32Array.from(this.#encode(text, addSpecialTokens));
  }

  #encode(text: string, special: boolean): readonly number[] {
    if (text === "" && !special) return [];
    const { ids, tokens } = this.#library.encode(text, { add_special_tokens: special });
    const missing = (ids as (number | undefined)[]).findIndex((id) => id === undefined || id === null);
    if (missing < 0) return ids;
    const token = tokens[missing] as string | undefined; // the library does not always know which part it was
    throw new UnknownSymbolError(
      token === undefined
        ? `text ${JSON.stringify(text.slice(0, 40))} (a part of it)`
        : `token ${JSON.stringify(token)}`,
      0,
      "its tokenizer.json has no token for the unknown",
    );
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const kept = this.#kept(ids, options);
    if (!this.#bytes) return this.#decodeText(kept);
    const pieces = kept.map((id) => this.#bytesOf(id));
    const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      joined.set(piece, at);
      at += piece.length;
    }
    return textDecoder().decode(joined);
  }

  #kept(ids: ArrayLike<number>, { skipSpecialTokens = false }: DecodeOptions): number[] {
    const all = Array.from(ids);
    return skipSpecialTokens ? all.filter((id) => !this.#specialIds.has(id)) : all;
  }

  #tokenOf(id: number): string | undefined {
    return this.#added.get(id) ?? this.#library.id_to_token(id);
  }

  /** The library's decoder, run by run between ids that it does not know. Spaces are never "cleaned up": decoding is exact. */
  #decodeText(ids: readonly number[]): string {
    let text = "";
    let run: number[] = [];
    const flush = () => {
      if (run.length) text += this.#library.decode(run, { clean_up_tokenization_spaces: false });
      run = [];
    };
    for (const id of ids) {
      if (this.#tokenOf(id) !== undefined) run.push(id);
      else {
        flush();
        text += replacement;
      }
    }
    flush();
    return text;
  }

  #bytesOf(id: number): Uint8Array {
    const known = this.#bytes?.[id];
    if (known) return known;
    const added = this.#added.get(id);
    const token = added ?? this.#library.id_to_token(id) ?? replacement;
    const values = added === undefined ? [...token].map((character) => characterBytes.get(character)) : [undefined];
    const bytes = values.includes(undefined) ? new TextEncoder().encode(token) : Uint8Array.from(values as number[]);
    if (this.#bytes && id >= 0 && id < this.vocabSize) this.#bytes[id] = bytes;
    return bytes;
  }

  stream(options: DecodeOptions = {}): TokenStream {
    if (!this.#bytes) return new WindowStream((ids) => this.#decodeText(this.#kept(ids, options)));
    const none = new Uint8Array(0);
    return new ByteStream((id) => (options.skipSpecialTokens && this.#specialIds.has(id) ? none : this.#bytesOf(id)));
  }

  byteLength(ids: ArrayLike<number>): number {
    if (!this.#bytes) return utf8Length(this.decode(ids));
    let sum = 0;
    for (let i = 0; i < ids.length; i++) sum += this.#bytesOf(ids[i] as number).length;
    return sum;
  }

  /**
   * The start of the last run of white space. Where words are not independent, a cut is tried: the text around it, cut and whole,
   * must give the same ids.
   */
  safeCut(text: string): number {
    let at = this.#words ? text.length : text.length - cutContext;
    for (let tries = 0; tries < cutTries; tries++) {
      at = spaceBefore(text, at);
      if (at <= 0) return 0;
      if (this.#words || this.#sameWhenCut(text, at)) return at;
    }
    return 0;
  }

  #sameWhenCut(text: string, at: number): boolean {
    const left = text.slice(Math.max(0, at - cutContext), at);
    const right = text.slice(at, at + cutContext);
    const whole = this.#encode(left + right, false);
    const parts = [...this.#encode(left, false), ...this.#encode(right, false)];
    return whole.length === parts.length && whole.every((id, i) => id === parts[i]);
  }

  toJSON(): HuggingFaceJSON {
    return { kind: "tokenizer.json", tokenizer: this.#tokenizer, ...(this.#config && { config: this.#config }) };
  }
}
