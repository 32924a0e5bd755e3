// Layer: eval. A model's answers on disk: what was asked before is not asked again, so that an evaluation that was interrupted
// goes on where it stopped. One file for one model, a line an answer.
// Knows files and requests. Knows no model and no task.
import { FileError, type FileSystem, parentPath, readText } from "@diffmamba/files";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import type { Answer, CallOptions, EvaluatedModel } from "./model.js";

const format = "diffmamba-requests";

export interface CacheOptions {
  readonly files: FileSystem;
  /** The file; its folder is made where it is missing. */
  readonly path: string;
  /** What tells the model from every other, such as a hash of its weights and its tokenizer. */
  readonly model: string;
  /** Seconds between two writes, at most; 2 by default. */
  readonly writeEvery?: number;
}

/** Answers that were read or given, and those that wait to be written. */
class AnswerFile {
  readonly #known = new Map<string, unknown>();
  #waiting: string[] = [];
  #written = Date.now();

  private constructor(
    readonly files: FileSystem,
    readonly path: string,
    readonly writeEvery: number,
  ) {}

  static async open({ files, path, model, writeEvery = 2 }: CacheOptions): Promise<AnswerFile> {
    const file = new AnswerFile(files, path, writeEvery);
    await files.makeDirectory(parentPath(path));
    const header = JSON.stringify({ format, version: 1, model });
    const text = (await files.stat(path)) === undefined ? "" : await readText(files, path);
    const end = text.lastIndexOf("\n") + 1;
    const [first, ...lines] = text.slice(0, end).split("\n");
    if (end === 0) {
      await files.truncate(path, 0).catch(() => undefined);
      file.#waiting.push(`${header}\n`);
      return file;
    }
    if (first !== header) {
      throw new FileError("other", "read", path, `it holds no answers of this model; use another file, or remove it`);
    }
    // A last line without an end was being written when the program was stopped.
    if (end < text.length) await files.truncate(path, utf8ToBytes(text.slice(0, end)).length);
    for (const line of lines) {
      if (line === "") continue;
      const { key, answer } = JSON.parse(line) as { key: string; answer: unknown };
      file.#known.set(key, answer);
    }
    return file;
  }

  get(key: string): unknown {
    return this.#known.get(key);
  }

  has(key: string): boolean {
    return this.#known.has(key);
  }

  async add(entries: readonly { readonly key: string; readonly answer: unknown }[]): Promise<void> {
    for (const entry of entries) {
      this.#known.set(entry.key, entry.answer);
      this.#waiting.push(`${JSON.stringify(entry)}\n`);
    }
    if (Date.now() - this.#written >= 1000 * this.writeEvery) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    const bytes = utf8ToBytes(this.#waiting.join(""));
    this.#waiting = [];
    this.#written = Date.now();
    const writer = await this.files.writer(this.path, { append: true });
    try {
      await writer.write(bytes);
      await writer.close();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }
}

/** What a request is known by. */
const keyOf = (call: string, request: unknown): string =>
  bytesToHex(sha256(utf8ToBytes(JSON.stringify([call, request]))));

/**
 * A model that remembers its answers in a file. Each call leaves its answers on disk when it ends, however that comes; between, they
 * are written every few seconds.
 * @throws FileError where the file cannot be used, or holds another model's answers
 */
export async function cachedModel(model: EvaluatedModel, options: CacheOptions): Promise<EvaluatedModel> {
  const file = await AnswerFile.open(options);

  async function through<R, T>(
    name: string,
    requests: readonly R[],
    { signal, onAnswers }: CallOptions<T>,
    ask: (missing: readonly R[], call: CallOptions<T>) => Promise<T[]>,
  ): Promise<T[]> {
    const keys = requests.map((request) => keyOf(name, request));
    const known: Answer<T>[] = [];
    /** The requests to be asked, each once, by the places where it stands. */
    const missing = new Map<string, number[]>();
    for (const [index, key] of keys.entries()) {
      if (file.has(key)) known.push({ index, result: file.get(key) as T });
      else missing.set(key, [...(missing.get(key) ?? []), index]);
    }
    if (known.length > 0) await onAnswers?.(known);
    const places = [...missing.values()];
    try {
      await ask(
        places.map(([first]) => requests[first]),
        {
          ...(signal && { signal }),
          onAnswers: async (answers) => {
            await file.add(answers.map(({ index, result }) => ({ key: keys[places[index][0]], answer: result })));
            await onAnswers?.(
              answers.flatMap(({ index, result }) => places[index].map((place) => ({ index: place, result }))),
            );
          },
        },
      );
    } finally {
      await file.flush();
    }
    return keys.map((key) => file.get(key) as T);
  }

  return {
    loglikelihood: (requests, call = {}) =>
      through("loglikelihood", requests, call, (missing, own) => model.loglikelihood(missing, own)),
    loglikelihoodRolling: (texts, call = {}) =>
      through("loglikelihoodRolling", texts, call, (missing, own) => model.loglikelihoodRolling(missing, own)),
    generateUntil: (requests, call = {}) =>
      through("generateUntil", requests, call, (missing, own) => model.generateUntil(missing, own)),
  };
}
