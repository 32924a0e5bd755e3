// What can be wrong with an addon's file that the system's loader does not say, or dies of: a library that was cut off is
// mapped as if it were whole, and touching what is missing ends the process.
// Knows the header of Linux's libraries (ELF, 64 bits). Loads nothing.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import process from "node:process";

/** The header's numbers of processors, by Node's names. */
const processors: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };

const HEADER_BYTES = 64;

/** What is wrong with a file, if anything. Elsewhere than on Linux the loader says all there is to say. */
export function fileFault(file: string): string | undefined {
  const wanted = processors[process.arch];
  if (process.platform !== "linux" || wanted === undefined) return undefined;
  const header = Buffer.alloc(HEADER_BYTES);
  const handle = openSync(file, "r");
  try {
    if (readSync(handle, header) < HEADER_BYTES || header.toString("latin1", 0, 4) !== "\x7fELF") {
      return "it is no library";
    }
    if (header[4] !== 2 || header.readUInt16LE(18) !== wanted) return `it is not for this processor (${process.arch})`;
    const { size } = fstatSync(handle);
    // The table of sections comes last.
    const end = Number(header.readBigUInt64LE(40)) + header.readUInt16LE(58) * header.readUInt16LE(60);
    return size < end ? `it was cut off: ${size} bytes of ${end}` : undefined;
  } finally {
    closeSync(handle);
  }
}
