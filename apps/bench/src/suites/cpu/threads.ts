// Layer: apps/bench, suites of the CPU backend. A case on so many threads: beside the reference backend, or beside fewer threads.
// Knows backends by name. Knows no op.
import type { Case, Context, Entry } from "../../race.js";

interface Beside {
  /** The reference backend is a peer: one sample, because it is a hundred times slower. */
  readonly reference?: boolean;
  /** The same work on so many threads is a peer. */
  readonly threads?: number;
}

/** "1 thread", "2 threads" */
export function threadsText(threads: number): string {
  return `${threads} ${threads === 1 ? "thread" : "threads"}`;
}

/** `item` on a CPU device of its own with so many threads, which its rows then say. */
export function onThreads(threads: number, item: Case, beside: Beside = {}): Case {
  return {
    ...item,
    threads,
    async prepare(context: Context) {
      const devices = [await context.open("cpu", { threads })];
      if (beside.threads !== undefined) devices.push(await context.open("cpu", { threads: beside.threads }));
      if (beside.reference) devices.push(await context.open("reference"));
      const enter = (entry: Entry) => {
        if (entry.backend === "reference") return context.enter({ ...entry, once: true });
        const isFewer = entry.name === "cpu backend" && beside.threads !== undefined;
        return context.enter(isFewer ? { ...entry, name: threadsText(beside.threads) } : entry);
      };
      const race = await item.prepare({ ...context, devices, enter });
      return { ...race, rows: (times) => race.rows(times).map((row) => ({ threads, ...row })) };
    },
  };
}
