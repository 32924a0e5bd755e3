// Layer: apps/cli. Numbers as people read them. Knows nothing.

/** 1,234,567 */
export const count = (value: number): string => value.toLocaleString("en-US");

/** 1.2 GB, 350 MB, 12 kB */
export function size(bytes: number): string {
  for (const [unit, scale] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (bytes >= scale)
      return `${bytes >= 10 * scale ? Math.round(bytes / scale) : (bytes / scale).toFixed(1)} ${unit}`;
  }
  return `${bytes} bytes`;
}
