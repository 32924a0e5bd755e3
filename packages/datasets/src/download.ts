// Layer: datasets. A file from an address into a file system: into `NAME.part`, from where it stopped the last time, checked, and only then
// under its name. Knows no data set. Knows the network only through `fetch`.
import { type FileSystem, parentPath, readJson, writeFileAtomic } from "@diffmamba/files";
import { Checker, type Checksums } from "./checksum.js";
import { fileWindows } from "./streams.js";

/** A download that did not work. The message names the address, what came and what to do. */
export class DownloadError extends Error {
  override readonly name = "DownloadError";
  constructor(
    readonly url: string,
    detail: string,
    options?: ErrorOptions,
  ) {
    super(`${url}: ${detail}`, options);
  }
}

/** What is fetched. */
export interface Download extends Checksums {
  readonly url: string;
  /** Bytes, where they are published. */
  readonly size?: number;
}

export interface DownloadProgress {
  readonly phase: "download" | "check";
  readonly url: string;
  readonly bytes: number;
  /** All of them, where the server says so. */
  readonly total?: number;
}

export interface DownloadOptions {
  readonly files: FileSystem;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: DownloadProgress) => void;
  /** How often it is tried again after a fault without a byte gained; 4 unless told. */
  readonly retries?: number;
  /** Milliseconds before the first of these; they double. 1000 unless told. */
  readonly waitMs?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Another `fetch`, for a proxy. */
  readonly fetch?: typeof fetch;
}

/** What is known of a part: from where, and of which version. */
interface PartNote {
  readonly url: string;
  /** A strong ETag or a date, by which the server tells whether the file is still the same. */
  readonly validator: string | null;
}

/** A fault after which it is tried again. */
class Interrupted extends Error {}

/** Bytes between two flushes of the part: no more is lost when the process dies. */
const flushBytes = 64 << 20;

async function readNote(files: FileSystem, path: string): Promise<PartNote | undefined> {
  if ((await files.stat(path)) === undefined) return undefined;
  try {
    return (await readJson(files, path)) as PartNote;
  } catch {
    return undefined;
  }
}

function validatorOf(headers: Headers): string | null {
  const etag = headers.get("etag");
  return etag !== null && !etag.startsWith("W/") ? etag : headers.get("last-modified");
}

/** First byte and size of `Content-Range: bytes 5-9/10`. */
function rangeOf(headers: Headers): { readonly start: number; readonly total?: number } | undefined {
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  if (match === null) return undefined;
  return { start: Number(match[1]), ...(match[2] !== "*" && { total: Number(match[2]) }) };
}

/** The MD5 that Google's storage publishes with a file, in hexadecimal. */
function publishedMd5(headers: Headers): string | undefined {
  const base64 = /md5=([\w+/]+=*)/.exec(headers.get("x-goog-hash") ?? "")?.[1];
  if (base64 === undefined) return undefined;
  return Array.from(atob(base64), (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}

class Fetcher {
  readonly #part: string;
  readonly #note: string;
  #total: number | undefined;
  #md5: string | undefined;

  constructor(
    readonly what: Download,
    readonly path: string,
    readonly options: DownloadOptions,
  ) {
    this.#part = `${path}.part`;
    this.#note = `${path}.part.json`;
    this.#total = what.size;
  }

  async run(): Promise<void> {
    const { files, signal, retries = 4, waitMs = 1000 } = this.options;
    await files.makeDirectory(parentPath(this.path));
    for (let tries = 0; ; ) {
      signal?.throwIfAborted();
      const before = await this.#size();
      try {
        await this.#fetch(before);
        break;
      } catch (error) {
        if (!(error instanceof Interrupted)) throw error;
        tries = (await this.#size()) > before ? 0 : tries + 1;
        if (tries > retries) {
          const kept = await this.#size();
          throw new DownloadError(
            this.what.url,
            `${error.message}; tried ${tries} times without another byte. ` +
              `${kept} bytes are kept in ${this.#part}: the same again goes on from there`,
            { cause: error.cause },
          );
        }
        await pause(waitMs * 2 ** Math.max(0, tries - 1), signal);
      }
    }
    await this.#check();
    await files.rename(this.#part, this.path);
    await files.syncDirectory(parentPath(this.path));
    await files.remove(this.#note);
  }

  async #size(): Promise<number> {
    return (await this.options.files.stat(this.#part))?.size ?? 0;
  }

  /** One request, to its end. */
  async #fetch(has: number): Promise<void> {
    const { what, options } = this;
    const note = await readNote(options.files, this.#note);
    const goesOn = has > 0 && note?.url === what.url && note.validator !== null;
    if (goesOn && has === this.#total) return;
    const { validator } = note ?? {};
    const response = await this.#request({
      "accept-encoding": "identity", // the bytes of the file, not packed ones
      ...options.headers,
      ...(goesOn && { range: `bytes=${has}-`, "if-range": validator as string }),
    });
    const { status, headers } = response;
    if (status === 416 && goesOn) {
      await response.body?.cancel();
      const total = Number(/^bytes \*\/(\d+)$/.exec(headers.get("content-range") ?? "")?.[1]);
      if (total === has) return;
      await options.files.remove(this.#part);
      throw new Interrupted("the part that is here is longer than the file");
    }
    if (status !== 200 && status !== 206) {
      await response.body?.cancel();
      const said = `the server answered ${status}${response.statusText && ` ${response.statusText}`}`;
      if (status >= 500 || status === 408 || status === 429) throw new Interrupted(said);
      const remedy = status === 404 ? "the file is not at this address" : "it does not give the file";
      throw new DownloadError(what.url, `${said}: ${remedy}. Fetch it by hand and name it with --from`);
    }
    const range = status === 206 ? rangeOf(headers) : { start: 0 };
    if (range === undefined || (status === 206 && range.start !== has)) {
      await response.body?.cancel();
      throw new DownloadError(what.url, `the server answered with another range than was asked for (from byte ${has})`);
    }
    const length = Number(headers.get("content-length") ?? Number.NaN);
    const total = "total" in range ? range.total : Number.isNaN(length) ? undefined : range.start + length;
    this.#md5 = publishedMd5(headers);
    if (what.size !== undefined && total !== undefined && total !== what.size) {
      await response.body?.cancel();
      throw new DownloadError(what.url, `the server has ${total} bytes, but ${what.size} were published: another file`);
    }
    this.#total = total ?? what.size;
    const fresh: PartNote = { url: what.url, validator: validatorOf(headers) };
    if (range.start === 0) await options.files.remove(this.#part);
    await writeFileAtomic(options.files, this.#note, `${JSON.stringify(fresh)}\n`);
    await this.#receive(response, range.start);
  }

  async #request(headers: Record<string, string>): Promise<Response> {
    const { fetch: get = fetch, signal } = this.options;
    try {
      return await get(this.what.url, { headers, redirect: "follow", ...(signal && { signal }) });
    } catch (error) {
      signal?.throwIfAborted();
      const cause = (error as { cause?: { message?: string } }).cause?.message ?? (error as Error).message;
      throw new Interrupted(`there was no answer (${cause})`, { cause: error });
    }
  }

  /** The body into the part. What has come stays, whatever happens. */
  async #receive(response: Response, start: number): Promise<void> {
    const { files, signal, onProgress } = this.options;
    const { url } = this.what;
    let at = start;
    let flushed = start;
    let writer = await files.writer(this.#part, { append: start > 0 });
    const reader = response.body?.getReader();
    try {
      for (;;) {
        let next: ReadableStreamReadResult<Uint8Array> | undefined;
        try {
          next = await reader?.read();
        } catch (error) {
          signal?.throwIfAborted();
          const of = this.#total === undefined ? "" : ` of ${this.#total}`;
          throw new Interrupted(`the connection broke off after ${at}${of} bytes`, { cause: error });
        }
        if (next === undefined || next.done) break;
        await writer.write(next.value);
        at += next.value.length;
        const total = this.#total;
        onProgress?.({ phase: "download", url, bytes: at, ...(total !== undefined && { total }) });
        if (at - flushed >= flushBytes) {
          await writer.close();
          writer = await files.writer(this.#part, { append: true });
          flushed = at;
        }
      }
    } finally {
      await reader?.cancel().catch(() => undefined);
      await writer.close();
    }
    if (this.#total !== undefined && at < this.#total) {
      throw new Interrupted(`the server stopped after ${at} of ${this.#total} bytes`);
    }
  }

  /** @throws DownloadError, the part removed, where it is not what was published */
  async #check(): Promise<void> {
    const { what, options } = this;
    const size = await this.#size();
    const wrong = async (detail: string): Promise<never> => {
      await options.files.remove(this.#part);
      await options.files.remove(this.#note);
      throw new DownloadError(
        what.url,
        `${detail}. What came was removed; fetch it again, or name a good copy with --from`,
      );
    };
    const expected = what.size ?? this.#total;
    if (expected !== undefined && size !== expected) await wrong(`${size} bytes came, but it has ${expected}`);
    const checker = new Checker({ ...(this.#md5 !== undefined && { md5: this.#md5 }), ...what }, size);
    if (checker.empty) return;
    let bytes = 0;
    for await (const window of fileWindows(options.files, this.#part)) {
      options.signal?.throwIfAborted();
      checker.update(window);
      bytes += window.length;
      options.onProgress?.({ phase: "check", url: what.url, bytes, total: size });
    }
    options.signal?.throwIfAborted();
    const difference = checker.difference();
    if (difference !== undefined) await wrong(difference);
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Fetches a file, unless it is there. A download that stopped goes on where it did, as long as the server has the same file; one that
 * comes is checked against what is published, and only then has its name.
 * @throws DownloadError naming the address and what came; FileError for the disk; what `signal` was aborted with
 */
export async function download(what: Download, path: string, options: DownloadOptions): Promise<void> {
  const found = await options.files.stat(path);
  if (found?.kind === "file" && (what.size === undefined || found.size === what.size)) return;
  await new Fetcher(what, path, options).run();
}
