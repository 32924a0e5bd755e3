// Layer: tokenizer. What byte-level BPE (GPT-2, GPT-NeoX, and what we train) is made of: the characters that stand for bytes, the
// pattern that cuts a text into words, the tokenizer.json of a vocabulary and its merges, and GPT-2's two files.
// Knows no file and no library.
import { TokenizerFormatError } from "./tokenizer.js";

/** The character that stands for each byte in a byte-level vocabulary: printable Latin-1 is itself, the rest moved to U+0100 and on. */
export const byteCharacters: readonly string[] = (() => {
  let moved = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : moved++);
  });
})();

/** The byte behind each of {@link byteCharacters}. */
export const characterBytes: ReadonlyMap<string, number> = new Map(byteCharacters.map((text, byte) => [text, byte]));

/**
 * White space of Unicode, as a part of a character class. JavaScript's own `\s` has U+FEFF in place of U+0085, and then tokens
 * differ from those that the tokenizers were trained with.
 */
export const spaceClass = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

/** GPT-2's pattern: the words that are merged each by itself. (A-Z and a-z are letters too; named first they are found faster.) */
export const wordPattern =
  `'(?:[stmd]|re|ve|ll)| ?(?:[A-Za-z]|\\p{L})+| ?\\p{N}+| ?[^${spaceClass}\\p{L}\\p{N}]+` +
  `|[${spaceClass}]+(?![^${spaceClass}])|[${spaceClass}]+`;

/** A word, as the characters that stand for its bytes; a lone surrogate as those of U+FFFD. */
export function toByteCharacters(word: string): string {
  for (let i = 0; i < word.length; i++) {
    const unit = word.charCodeAt(i);
    if (unit > 0x20 && unit < 0x7f) continue;
    let text = "";
    for (const byte of new TextEncoder().encode(word)) text += byteCharacters[byte];
    return text;
  }
  return word;
}

/** A pair of tokens that becomes one, in the characters that stand for bytes. */
export type Merge = readonly [string, string];

export interface ByteLevelOptions {
  /** Tokens of their own, such as `<|endoftext|>`: special ones, which a text is cut at before anything else. */
  readonly specialTokens?: readonly string[];
  /** Composes characters first, as GPT-NeoX does. */
  readonly nfc?: boolean;
}

/**
 * The tokenizer.json of a byte-level BPE, as the Hugging Face library writes it.
 * @param vocab tokens to ids; a special token that it lacks comes behind its last id
 */
export function byteLevelJson(
  vocab: Readonly<Record<string, number>>,
  merges: readonly Merge[],
  { specialTokens = [], nfc = false }: ByteLevelOptions = {},
): object {
  let next = Object.values(vocab).reduce((size, id) => Math.max(size, id + 1), 0);
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: vocab[content] ?? next++,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: nfc ? { type: "NFC" } : null,
    pre_tokenizer: byteLevel,
    post_processor: { ...byteLevel, trim_offsets: false },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  };
}

/**
 * The tokenizer.json of GPT-2's two files. `<|endoftext|>` is special where the vocabulary has it.
 * @param vocab the content of `vocab.json`: tokens to ids
 * @param merges the content of `merges.txt`: a pair a line, the one that is merged first on top
 * @param sources names of both, for messages
 * @throws TokenizerFormatError naming the file and the line
 */
export function gpt2Json(
  vocab: unknown,
  merges: string,
  sources: readonly [string, string] = ["vocab.json", "merges.txt"],
): object {
  const [vocabSource, mergesSource] = sources;
  const sound = typeof vocab === "object" && vocab !== null && !Array.isArray(vocab);
  if (!sound || !Object.values(vocab).every((id) => Number.isSafeInteger(id) && (id as number) >= 0)) {
    throw new TokenizerFormatError(vocabSource, "it is not an object of tokens and their ids");
  }
  const ids = vocab as Record<string, number>;
  const pairs: Merge[] = [];
  for (const [index, line] of merges.split(/\r?\n/).entries()) {
    if (line === "" || (index === 0 && line.startsWith("#version"))) continue;
    const pair = line.split(" ");
    const [left, right] = pair;
    if (pair.length !== 2 || left === undefined || right === undefined || ids[left + right] === undefined) {
      throw new TokenizerFormatError(
        mergesSource,
        `line ${index + 1} is ${JSON.stringify(line)}; expected two tokens whose joining is in ${vocabSource}`,
      );
    }
    pairs.push([left, right]);
  }
  const special = Object.hasOwn(ids, "<|endoftext|>") ? ["<|endoftext|>"] : [];
  return byteLevelJson(ids, pairs, { specialTokens: special });
}
