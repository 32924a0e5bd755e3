// Layer: reference backend. The two inner loops of the chunked scan, on stretches of arrays of doubles, unrolled by four
// because they are mostly as short as a head or a state. Knows nothing else.

/** sum_i a[aAt + i] b[bAt + i] over n elements. */
export function dot(a: Float64Array, aAt: number, b: Float64Array, bAt: number, n: number): number {
  let sum = 0;
  let i = 0;
  for (; i + 3 < n; i += 4) {
    const u = aAt + i;
    const v = bAt + i;
    sum += a[u] * b[v] + a[u + 1] * b[v + 1] + (a[u + 2] * b[v + 2] + a[u + 3] * b[v + 3]);
  }
  for (; i < n; i++) sum += a[aAt + i] * b[bAt + i];
  return sum;
}

/** y[yAt + i] += k x[xAt + i] for n elements. */
export function addScaled(y: Float64Array, yAt: number, k: number, x: Float64Array, xAt: number, n: number): void {
  let i = 0;
  for (; i + 3 < n; i += 4) {
    const u = yAt + i;
    const v = xAt + i;
    y[u] += k * x[v];
    y[u + 1] += k * x[v + 1];
    y[u + 2] += k * x[v + 2];
    y[u + 3] += k * x[v + 3];
  }
  for (; i < n; i++) y[yAt + i] += k * x[xAt + i];
}
