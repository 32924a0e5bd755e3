// Layer: CUDA backend. What a profile gives: the times of kernels, added up by name. Knows no device.

/** What kernels of one name took together. */
export interface KernelTime {
  /** The kernel's; of a matrix product `matmul`, its sizes, batch x m x k x n, and the type of its factors. */
  readonly name: string;
  readonly count: number;
  readonly milliseconds: number;
}

/** The total of each name, the longest first: `milliseconds[i]` is of a kernel called `names[i]`. */
export function totalsOf(names: readonly string[], milliseconds: readonly number[]): KernelTime[] {
  const totals = new Map<string, { count: number; milliseconds: number }>();
  for (const [i, name] of names.entries()) {
    const total = totals.get(name) ?? { count: 0, milliseconds: 0 };
    totals.set(name, { count: total.count + 1, milliseconds: total.milliseconds + milliseconds[i] });
  }
  return [...totals].map(([name, total]) => ({ name, ...total })).sort((a, b) => b.milliseconds - a.milliseconds);
}
