// Layer: apps/playground, bench. The page that bench.mjs opens: it hands the work to a worker and gives back its rows.

import type { Row } from "./contender.js";

export type Race = (device: string, budget: number) => Promise<readonly Row[]>;

/** @throws Error with what the worker says */
const race: Race = (device, budget) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<{ readonly rows?: readonly Row[]; readonly error?: string }>) => {
      worker.terminate();
      if (data.rows !== undefined) resolve(data.rows);
      else reject(new Error(data.error));
    };
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage({ device, budget });
  });

(globalThis as { race?: Race }).race = race;
