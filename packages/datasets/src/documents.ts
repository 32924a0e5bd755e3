// Layer: datasets. Where the documents of a split begin: a file of 64-bit positions, searched by halving without loading it.
// Knows files only through the FileSystem interface.
import type { FileSystem } from "@diffmamba/files";
import { StoreError } from "./token-source.js";
import { WindowCache } from "./window-cache.js";

/** Positions of one page, the unit that is read and kept; and how many pages are kept. */
const pageEntries = 4096;
const pages = 64;

/** Positions as the file has them: little-endian, 64 bits each. */
export function packStarts(starts: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(8 * starts.length);
  const view = new DataView(bytes.buffer);
  starts.forEach((start, i) => {
    view.setBigUint64(8 * i, BigInt(start), true);
  });
  return bytes;
}

export class DocumentIndex {
  readonly #pages = new WindowCache<Float64Array>(pages);

  /**
   * @param name path of the file
   * @param count documents
   * @param tokens of the split: every document begins before
   */
  constructor(
    readonly files: FileSystem,
    readonly name: string,
    readonly count: number,
    readonly tokens: number,
  ) {}

  /** The place of a document's first token. */
  async start(document: number): Promise<number> {
    if (!Number.isSafeInteger(document) || document < 0 || document >= this.count) {
      throw new RangeError(`${this.name}: document ${document} was asked for, but there are ${this.count} (from 0)`);
    }
    const page = await this.#page(Math.floor(document / pageEntries));
    return page[document % pageEntries] as number;
  }

  /** First token of a document and the token behind its last one. */
  async range(document: number): Promise<readonly [number, number]> {
    const start = await this.start(document);
    return [start, document + 1 < this.count ? await this.start(document + 1) : this.tokens];
  }

  /** The places behind `from` and before `to` where a document begins: where a window of these tokens has a boundary. */
  async startsBetween(from: number, to: number): Promise<number[]> {
    const starts: number[] = [];
    for (let document = await this.#firstBehind(from); document < this.count; document++) {
      const start = await this.start(document);
      if (start >= to) break;
      starts.push(start);
    }
    return starts;
  }

  /** The first document that begins behind a token. */
  async #firstBehind(token: number): Promise<number> {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((await this.start(middle)) > token) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #page(index: number): Promise<Float64Array> {
    return this.#pages.get(String(index), async () => {
      const first = index * pageEntries;
      const count = Math.min(pageEntries, this.count - first);
      const bytes = await this.files.readRange(this.name, 8 * first, 8 * count);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const starts = Float64Array.from({ length: count }, (_, i) => Number(view.getBigUint64(8 * i, true)));
      starts.forEach((start, i) => {
        const before = i === 0 ? -1 : (starts[i - 1] as number);
        if (start > before && start < this.tokens) return;
        throw new StoreError(
          this.name,
          `document ${first + i} begins at token ${start}, which is not behind the one before it and before ${this.tokens}; ` +
            "the data is damaged: prepare it again",
        );
      });
      return starts;
    });
  }
}
