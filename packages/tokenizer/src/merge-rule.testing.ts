// Layer: tokenizer, for tests. The rule of byte-level BPE as GPT-2's paper code states it, as plainly as it can be written: no library, no
// cache. The measure that ids are held to. Knows no tokenizer of the package.

interface Description {
  readonly added_tokens: readonly { readonly id: number; readonly content: string; readonly normalized: boolean }[];
  readonly normalizer: { readonly type: string } | null;
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (string | readonly [string, string])[];
  };
}

const words =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The characters that stand for bytes, from the ranges that GPT-2 names. */
function characterOf(byte: number): string {
  const own = (value: number) =>
    (value >= 33 && value <= 126) || (value >= 161 && value <= 172) || (value >= 174 && value <= 255);
  if (own(byte)) return String.fromCharCode(byte);
  let moved = 0;
  for (let value = 0; value < byte; value++) if (!own(value)) moved++;
  return String.fromCharCode(256 + moved);
}

/** Cuts a text at tokens: at each place the longest one that begins there. */
function cutAt(text: string, tokens: ReadonlyMap<string, number>): (string | number)[] {
  const parts: (string | number)[] = [];
  let from = 0;
  const byLength = [...tokens.keys()].sort((a, b) => b.length - a.length);
  const first = new Set(byLength.map((content) => content.charAt(0)));
  for (let at = 0; at < text.length; ) {
    if (!first.has(text.charAt(at))) {
      at++;
      continue;
    }
    const token = byLength.find((content) => text.startsWith(content, at));
    if (token === undefined) {
      at++;
      continue;
    }
    if (at > from) parts.push(text.slice(from, at));
    parts.push(tokens.get(token) as number);
    at += token.length;
    from = at;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

/** Ids of a text by a tokenizer.json of byte-level BPE. */
export function straightEncoder(description: unknown): (text: string) => number[] {
  const { added_tokens: added, normalizer, model } = description as Description;
  const ranks = new Map(model.merges.map((pair, rank) => [typeof pair === "string" ? pair : pair.join(" "), rank]));
  const nfc = normalizer?.type === "NFC";
  const tokens = (normalized: boolean) =>
    new Map(added.filter((t) => (nfc && t.normalized) === normalized).map((t) => [t.content, t.id]));
  const [raw, composed] = [tokens(false), tokens(true)];

  const mergeWord = (word: string): number[] => {
    let parts = Array.from(new TextEncoder().encode(word), characterOf);
    for (;;) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++)
        best = Math.min(best, ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      if (best === Infinity) return parts.map((part) => model.vocab[part] as number);
      const merged: string[] = [];
      for (let i = 0; i < parts.length; i++) {
        if (i + 1 < parts.length && ranks.get(`${parts[i]} ${parts[i + 1]}`) === best) {
          merged.push(`${parts[i]}${parts[i + 1]}`);
          i++;
        } else merged.push(parts[i] as string);
      }
      parts = merged;
    }
  };

  const known = new Map<string, number[]>();
  const wordIds = (word: string): number[] => {
    const ids = known.get(word) ?? mergeWord(word);
    known.set(word, ids);
    return ids;
  };
  return (text) =>
    cutAt(text, raw).flatMap((part) =>
      typeof part === "number"
        ? [part]
        : cutAt(nfc ? part.normalize("NFC") : part, composed).flatMap((piece) =>
            typeof piece === "number" ? [piece] : (piece.match(words) ?? []).flatMap(wordIds),
          ),
    );
}

/** Texts that tokenizers get wrong, one of each kind. */
export const hardCases: readonly string[] = [
  "emoji 😀 👨‍👩‍👧‍👦 🇩🇪 👍🏽 ☃️",
  "日本語のテキスト 中文字符 한국어 ไทย العربية עברית हिन्दी",
  "\u0000\u0001\u0002\u0007\u001b\u001c\u001d\u001e\u001f\u007f\u0080\u0085\u009f",
  "a\u0085b \u0085 c\u0085\u0085d",
  "\ufeffmark a\ufeffb !\ufeff! \ufeff x",
  "\u200b\u200d\u2060\u180e a\u180e\u2028\u2029\u3000\u3000x\u00a0\u00a0y",
  "lone \ud800 \udc00x\ud83d y\ude00",
  `${" ".repeat(1)}a${" ".repeat(2)}b${" ".repeat(23)}c${" ".repeat(24)}d${" ".repeat(25)}e${" ".repeat(200)}f${" ".repeat(49)}`,
  "\t\t  \n\n  x\r\n y\n \n\t \n",
  "e\u0301 cafe\u0301 \u0301x  \u0301 A\u030a \u212b \u0958 \u1100\u1161\u11a8",
  "don't we'll I've they're he'd I'm it's 'sx 'S ''s 's's",
  "١٢٣ ½ ² Ⅷ ①0 3.14159 1,000,000",
  "<|endoftext|> x<|endoftext|><|padding|>  <|endoftext|>  y <|endof",
  "a".repeat(300) + "é".repeat(100) + "!?".repeat(80),
  "__init__(self, *args):\n    return {'a': [1, 2]}  # naïve",
  "",
];

/** What stands in a text after it has been bytes: a lone surrogate is no character, and becomes U+FFFD. */
export const wellFormed = (text: string): string =>
  new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text));
