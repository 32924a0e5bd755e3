// Layer: tests of the reference backend. The inner loops at lengths around their unrolling.

import { describe, expect, it } from "vitest";
import { addScaled, dot } from "./vector.js";

describe("vector loops", () => {
  const a = Float64Array.from({ length: 16 }, (_, i) => i + 1);
  const b = Float64Array.from({ length: 16 }, (_, i) => 10 - i);

  it.each([0, 1, 3, 4, 5, 8, 11])("cover exactly %i elements", (n) => {
    let sum = 0;
    const y = b.slice();
    for (let i = 0; i < n; i++) {
      sum += a[2 + i] * b[3 + i];
      y[3 + i] += 2 * a[2 + i];
    }
    expect(dot(a, 2, b, 3, n)).toBe(sum);
    const written = b.slice();
    addScaled(written, 3, 2, a, 2, n);
    expect(written).toEqual(y);
  });
});
