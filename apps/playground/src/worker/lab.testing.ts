// Layer: apps/playground, worker, for tests. A lab on the reference backend whose device can be lost on demand, and what it tells.

import { type Backend, Device, ReferenceBackend } from "@diffmamba/tensor";
import type { Event } from "../protocol.js";
import { type RunSettings, sizes } from "../settings.js";
import { type Backends, Lab } from "./lab.js";

export const quick: RunSettings = {
  ...sizes.tiny,
  ...{ layers: 1, width: 16, state: 4, headDim: 8, length: 16, batch: 2, steps: 6 },
  ...{ evaluateEvery: 3, sampleEvery: 3, evaluateTokens: 32, sampleTokens: 8 },
};

export const rhyme = "the cat sat on the mat, and the dog sat on the log. ".repeat(40);

/** A backend whose kernels fail once `lost` says so. */
function fragile(lost: () => boolean): Backend {
  const backend = new ReferenceBackend();
  const kernels = new Proxy(backend.kernels, {
    get(target, name) {
      const kernel = Reflect.get(target, name) as unknown;
      if (typeof kernel !== "function") return kernel;
      return (...args: unknown[]) => {
        if (lost()) throw new Error("the device was lost");
        return Reflect.apply(kernel, target, args);
      };
    },
  });
  return new Proxy(backend, {
    get(target, name) {
      if (name === "kernels") return kernels;
      const value = Reflect.get(target, name) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

export interface TestLab {
  readonly lab: Lab;
  readonly events: Event[];
  /** Resolves when an event fits. */
  until(fits: (event: Event) => boolean): Promise<Event>;
  /** Every device that is open by now fails from here on. */
  lose(): void;
  opened(): number;
}

export function testLab(): TestLab {
  const events: Event[] = [];
  const waiting: { fits: (event: Event) => boolean; resolve: (event: Event) => void }[] = [];
  let generation = 0;
  let lostUpTo = 0;
  const backends: Backends = {
    reports: async () => [{ name: "reference", title: "JavaScript", available: true, reason: "", software: false }],
    open: async () => {
      const own = ++generation;
      return { device: new Device(fragile(() => own <= lostUpTo)), name: "reference", title: "JavaScript" };
    },
  };
  const lab = new Lab(backends, (event) => {
    events.push(event);
    for (const one of waiting.filter(({ fits }) => fits(event))) {
      waiting.splice(waiting.indexOf(one), 1);
      one.resolve(event);
    }
  });
  return {
    lab,
    events,
    until: (fits) => new Promise((resolve) => waiting.push({ fits, resolve })),
    lose: () => {
      lostUpTo = generation;
    },
    opened: () => generation,
  };
}

export const isPhase = (wanted: string) => (event: Event) => event.type === "phase" && event.phase === wanted;
