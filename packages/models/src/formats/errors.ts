// Checkpoint formats, the base: the one error of every reader and writer here, and how names and sizes are shown in it.
// Knows no format.

/** A file that is not what its format demands, or asks for what is refused. The message begins with the file's path. */
export class FormatError extends Error {
  override readonly name = "FormatError";
  constructor(
    readonly path: string,
    detail: string,
    options?: ErrorOptions,
  ) {
    super(`${path}: ${detail}`, options);
  }
}

const longestShown = 200;

/** Text from a file, fit for a message: control characters escaped, long text cut. */
export function shown(text: string): string {
  const cut = text.length > longestShown ? `${text.slice(0, longestShown)}...` : text;
  return cut.replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, (char) => `\\u${hex4(char.charCodeAt(0))}`);
}

function hex4(code: number): string {
  return code.toString(16).padStart(4, "0");
}

/** A count with separators: 1204224 -> "1,204,224". */
export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** A shape as messages show it: [2, 3] -> "(2, 3)". */
export function shapeText(shape: readonly number[]): string {
  return `(${shape.join(", ")})`;
}

/** True for an integer from 0 that a double holds exactly. */
export function isSize(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0);
}

/** Product of the sizes, or undefined where it passes the largest exact integer on the way. */
export function elementCount(shape: readonly number[]): number | undefined {
  let product = 1;
  for (const size of shape) {
    product *= size;
    if (!Number.isSafeInteger(product)) return undefined;
  }
  return product;
}

/** The longest shape that is read: more axes than any model has, few enough to be harmless. */
export const maxRank = 32;
