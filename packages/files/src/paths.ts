// Layer: files. What the forms without an operating system beneath them share: paths cut into parts, and checked ranges.
// Knows no platform.
import { FileError } from "./index.js";

/** The parts of a path below the root: empty parts and `.` dropped, `..` resolved. `/a//b/../c` gives `["a", "c"]`. */
export function pathParts(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return parts;
}

/**
 * Checks a byte range against a file's size.
 * @throws RangeError for a range that is none; FileError "short" where the file ends before it
 */
export function checkRange(path: string, offset: number, length: number, size: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw new RangeError(`${path}: a range wants whole numbers from 0 on, got offset ${offset} and length ${length}`);
  }
  if (offset + length > size) throw shortError(path, offset, length, size);
}

/** The error for a range that ends behind the file. */
export function shortError(path: string, offset: number, length: number, size: number): FileError {
  return new FileError(
    "short",
    "read",
    path,
    `bytes ${offset} to ${offset + length} were asked for, but the file holds ${size}`,
  );
}

/** Checks the size that a file is cut to. */
export function checkTruncate(path: string, size: number, has: number): void {
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new RangeError(`${path}: a file is cut to a whole number of bytes from 0 on, got ${size}`);
  }
  if (size > has) throw new FileError("short", "truncate", path, `it holds ${has} bytes, fewer than ${size}`);
}

/** Sorts names by UTF-16 code units: the same order on every platform and locale. */
export function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
