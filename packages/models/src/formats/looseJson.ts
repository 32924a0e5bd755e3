// Checkpoint formats: JSON as Python's json module reads and writes it, with bare Infinity, -Infinity and NaN as values.
// Model folders contain such files (`"time_step_limit": [0.0, Infinity]`), and JSON.parse refuses them.
// Knows text and positions; of files only how to read one.
import type { FileSystem } from "@diffmamba/files";
import { FormatError, shown } from "./errors.js";

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

export interface LooseJsonOptions {
  /** Two equal keys in one object: the last one wins, as in Python (default), or an error. */
  readonly duplicates?: "last" | "error";
  /** Accept Infinity, -Infinity and NaN (default true). */
  readonly nonFinite?: boolean;
}

const maxDepth = 256;
const numberPattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const words: readonly (readonly [string, JsonValue])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];
const nonFiniteWords: readonly (readonly [string, number])[] = [
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
  ["NaN", Number.NaN],
];
const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/**
 * Parses JSON that may hold bare `Infinity`, `-Infinity` and `NaN` where a value stands. Source: RFC 8259 and the
 * deviations that Python's json module documents.
 * @param name the file's path, for messages
 * @throws FormatError with file, line and column (both from 1) for text that is not JSON
 */
export function parseLooseJson(text: string, name: string, options: LooseJsonOptions = {}): JsonValue {
  return new JsonReader(text, name, options).document();
}

/** Decodes UTF-8 (a byte order mark is skipped) and parses it as {@link parseLooseJson}. */
export function parseLooseJsonBytes(bytes: Uint8Array, name: string, options: LooseJsonOptions = {}): JsonValue {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(name, "not JSON: its bytes are not UTF-8 text", { cause });
  }
  return parseLooseJson(text, name, options);
}

/** Reads and parses a JSON file as {@link parseLooseJson}. @throws FileError where it cannot be read */
export async function readLooseJson(
  files: FileSystem,
  path: string,
  options: LooseJsonOptions = {},
): Promise<JsonValue> {
  return parseLooseJsonBytes(await files.read(path), path, options);
}

/** True for what stands for itself in a string: neither quote, backslash nor control character, nor the end (NaN). */
function isPlain(code: number): boolean {
  return code >= 0x20 && code !== 0x22 && code !== 0x5c;
}

/** True for a JSON object: neither null nor an array. */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

class JsonReader {
  private at = 0;
  private depth = 0;

  constructor(
    private readonly text: string,
    private readonly name: string,
    private readonly options: LooseJsonOptions,
  ) {}

  document(): JsonValue {
    const value = this.value();
    this.space();
    if (this.at < this.text.length) this.fail("expected the end of the file");
    return value;
  }

  private value(): JsonValue {
    this.space();
    const char = this.text[this.at];
    if (char === "{") return this.nested(() => this.object());
    if (char === "[") return this.nested(() => this.array());
    if (char === '"') return this.string();
    for (const [word, value] of words) if (this.take(word)) return value;
    if (this.options.nonFinite !== false) for (const [word, value] of nonFiniteWords) if (this.take(word)) return value;
    numberPattern.lastIndex = this.at;
    const number = numberPattern.exec(this.text)?.[0];
    if (number === undefined) return this.fail("expected a value");
    this.at += number.length;
    return Number(number);
  }

  private nested<T>(read: () => T): T {
    if (++this.depth > maxDepth) this.fail(`nested more than ${maxDepth} deep`);
    const value = read();
    this.depth--;
    return value;
  }

  private object(): JsonObject {
    const object: JsonObject = {};
    this.at++;
    if (this.next("}")) return object;
    do {
      this.space();
      const start = this.at;
      if (this.text[start] !== '"') this.fail("expected a key in double quotes");
      const key = this.string();
      if (this.options.duplicates === "error" && Object.hasOwn(object, key)) {
        this.at = start;
        this.fail(`the key "${shown(key)}" stands here twice`);
      }
      if (!this.next(":")) this.fail('expected ":"');
      const value = this.value();
      // Plain assignment to "__proto__" would change the object's prototype instead of adding a key.
      if (key === "__proto__") {
        Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
      } else object[key] = value;
    } while (this.next(","));
    if (!this.next("}")) this.fail('expected "," or "}"');
    return object;
  }

  private array(): JsonValue[] {
    const array: JsonValue[] = [];
    this.at++;
    if (this.next("]")) return array;
    do array.push(this.value());
    while (this.next(","));
    if (!this.next("]")) this.fail('expected "," or "]"');
    return array;
  }

  private string(): string {
    this.at++;
    let out = "";
    for (;;) {
      const start = this.at;
      while (isPlain(this.text.charCodeAt(this.at))) this.at++;
      out += this.text.slice(start, this.at);
      const char = this.text[this.at];
      if (char === '"') {
        this.at++;
        return out;
      }
      if (char !== "\\")
        this.fail(char === undefined ? "a string that does not end" : "a control character in a string");
      out += this.escape();
    }
  }

  private escape(): string {
    const code = this.text[this.at + 1] ?? "";
    if (code === "u") {
      const digits = this.text.slice(this.at + 2, this.at + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail("expected four hexadecimal digits after \\u");
      this.at += 6;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    const char = Object.hasOwn(escapes, code) ? escapes[code] : undefined;
    if (char === undefined) return this.fail("no such escape in a string");
    this.at += 2;
    return char;
  }

  private space(): void {
    for (;;) {
      const code = this.text.charCodeAt(this.at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.at++;
    }
  }

  /** Skips space, and the character where it is the next one. */
  private next(char: string): boolean {
    this.space();
    if (this.text[this.at] !== char) return false;
    this.at++;
    return true;
  }

  private take(word: string): boolean {
    if (!this.text.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  private fail(expected: string): never {
    const before = this.text.slice(0, this.at);
    const line = before.split("\n").length;
    const column = this.at - before.lastIndexOf("\n");
    const rest = this.text.slice(this.at, this.at + 12);
    const found = rest === "" ? "the file ends here" : `found "${shown(rest)}"`;
    throw new FormatError(this.name, `line ${line}, column ${column}: ${expected}; ${found}`);
  }
}

export interface StringifyOptions {
  /** Spaces a level (default 2); 0 writes one line. */
  readonly indent?: number;
  /** Keys in order of their code units (default true, as the Hugging Face library writes), or as inserted. */
  readonly sortKeys?: boolean;
}

/**
 * Writes JSON as Python's json module does, with bare `Infinity`, `-Infinity` and `NaN`; properties that are undefined are left
 * out. Equal values give equal text, whatever the order their keys were added in.
 * @throws TypeError for what JSON has no form for (a function, a bigint, a structure that contains itself)
 */
export function stringifyLooseJson(value: unknown, options: StringifyOptions = {}): string {
  const { indent = 2, sortKeys = true } = options;

  function write(item: unknown, depth: number): string {
    if (depth > maxDepth)
      throw new TypeError(`JSON: nested more than ${maxDepth} deep; does the value contain itself?`);
    if (typeof item === "number") return Number.isFinite(item) ? JSON.stringify(item) : String(item);
    if (typeof item === "string" || typeof item === "boolean" || item === null) return JSON.stringify(item);
    if (Array.isArray(item))
      return bracket(
        "[",
        item.map((entry) => write(entry, depth + 1)),
        "]",
        depth,
      );
    if (typeof item !== "object") throw new TypeError(`JSON has no form for a value of type ${typeof item}`);
    const keys = Object.entries(item).filter(([, entry]) => entry !== undefined);
    if (sortKeys) keys.sort(([a], [b]) => (a < b ? -1 : 1));
    const separator = indent > 0 ? ": " : ":";
    const lines = keys.map(([key, entry]) => `${JSON.stringify(key)}${separator}${write(entry, depth + 1)}`);
    return bracket("{", lines, "}", depth);
  }

  function bracket(open: string, items: readonly string[], close: string, depth: number): string {
    if (items.length === 0 || indent === 0) return `${open}${items.join(",")}${close}`;
    const margin = `\n${" ".repeat(indent * (depth + 1))}`;
    return `${open}${margin}${items.join(`,${margin}`)}\n${" ".repeat(indent * depth)}${close}`;
  }

  return write(value, 0);
}
