// Layer: datasets. Checksums as data sets publish them, of bytes that come in windows. Knows no file.
import { md5, sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

/** In hexadecimal. `gitSha1` is what git names a file by: of its size and its content. */
export interface Checksums {
  readonly sha256?: string;
  readonly sha1?: string;
  readonly gitSha1?: string;
  readonly md5?: string;
}

const names = ["sha256", "sha1", "gitSha1", "md5"] as const;

/** Takes the bytes and says at the end what differs. */
export class Checker {
  readonly #hashes: {
    readonly name: string;
    readonly expected: string;
    readonly hash: ReturnType<typeof sha1.create>;
  }[];

  /** @param size of the whole, which `gitSha1` wants */
  constructor(expected: Checksums, size: number) {
    this.#hashes = names.flatMap((name) => {
      const value = expected[name];
      if (value === undefined) return [];
      const hash = name === "sha256" ? sha256.create() : name === "md5" ? md5.create() : sha1.create();
      if (name === "gitSha1") hash.update(new TextEncoder().encode(`blob ${size}\0`));
      return [{ name, expected: value.toLowerCase(), hash: hash as ReturnType<typeof sha1.create> }];
    });
  }

  get empty(): boolean {
    return this.#hashes.length === 0;
  }

  update(bytes: Uint8Array): void {
    for (const { hash } of this.#hashes) hash.update(bytes);
  }

  /** `MD5 is …, but … was published`, or undefined where all is as it should be. */
  difference(): string | undefined {
    for (const { name, expected, hash } of this.#hashes) {
      const found = bytesToHex(hash.digest());
      if (found !== expected) return `its ${name} is ${found}, but ${expected} was published`;
    }
    return undefined;
  }
}
