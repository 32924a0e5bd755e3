// Layer: apps/playground, worker. A run of both models: in step with each other, paused, gone on with, made longer, moved to another device.
// Knows the contenders and their turns. Knows no device by name and no page.

import type { FileSystem } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import type { Device } from "@diffmamba/tensor";
import { contenders, type Event, type Phase } from "../protocol.js";
import type { RunSettings } from "../settings.js";
import { Contender } from "./contender.js";
import type { Corpus } from "./corpus.js";
import { Turns } from "./turns.js";

/** The part of a run that is on a device. */
interface Part {
  readonly turns: Turns;
  readonly stop: AbortController;
  /** Resolves, and never rejects, when both models have stopped. */
  readonly done: Promise<void>;
  /** Lets go of a pause. */
  resume?: () => void;
}

export class Duel {
  /** Holds both runs: their checkpoints outlive a device. */
  readonly files: FileSystem = memoryFiles();
  readonly contenders: readonly Contender[];
  #steps: number;
  #phase: Phase = "preparing";
  #part: Part | undefined;

  /** @throws ConfigError where no such models can be */
  constructor(
    readonly corpus: Corpus,
    readonly settings: RunSettings,
    readonly post: (event: Event) => void,
  ) {
    this.#steps = settings.steps;
    this.contenders = contenders.map(
      (name) => new Contender({ name, settings, corpus, files: this.files, post: (event) => this.post(event) }),
    );
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** Steps that both have done. */
  get step(): number {
    return Math.min(...this.contenders.map(({ step }) => step));
  }

  /** Steps that both have saved. */
  get savedStep(): number {
    return Math.min(...this.contenders.map(({ savedStep }) => savedStep));
  }

  /** Both models on a device, without a step taken: as they were saved last, or as they begin. */
  async place(device: Device): Promise<void> {
    for (const contender of this.contenders) {
      contender.dispose();
      if (contender.savedStep > 0) await contender.restore(device);
      else contender.build(device);
    }
  }

  /** Begins to take steps with the models that were placed. `paused`: stands still before the first one. */
  async start({ paused = false }: { readonly paused?: boolean } = {}): Promise<void> {
    const turns = new Turns(new Map(this.contenders.map(({ name, savedStep }) => [name, savedStep])));
    const stop = new AbortController();
    const resume = paused ? await turns.hold() : undefined;
    const part: Part = { turns, stop, done: this.#train(turns, stop), ...(resume && { resume }) };
    this.#part = part;
    this.#enter(paused ? "paused" : "training");
  }

  async #train(turns: Turns, stop: AbortController): Promise<void> {
    const results = await Promise.allSettled(
      this.contenders.map(async (contender) => {
        try {
          return await contender.train(this.#steps, turns, stop.signal);
        } catch (error) {
          // The other one is stopped too: one that goes on alone is no comparison.
          stop.abort();
          turns.release();
          throw error;
        } finally {
          turns.leave(contender.name);
        }
      }),
    );
    this.#part = undefined;
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) {
      this.#enter("interrupted");
      this.post({ type: "interrupted", message: messageOf(failed.reason), savedStep: this.savedStep });
    } else if (!stop.signal.aborted) this.#enter("finished");
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
    this.post({ type: "phase", phase, step: this.step, steps: this.#steps });
  }

  async pause(): Promise<void> {
    const part = this.#part;
    if (part === undefined || part.resume !== undefined) return;
    let resumed = false;
    part.resume = () => {
      resumed = true;
    };
    const letGo = await part.turns.hold();
    if (resumed || this.#part !== part) {
      letGo();
      return;
    }
    part.resume = letGo;
    this.#enter("paused");
  }

  /** Ends a pause. */
  resume(): void {
    const part = this.#part;
    if (part?.resume === undefined) return;
    part.resume();
    delete part.resume;
    this.#enter("training");
  }

  /** Asks for more steps, behind those that are done. */
  async extend(steps: number): Promise<void> {
    this.#steps = Math.max(this.#steps, this.step) + steps;
    await this.start();
  }

  /** Saves both models and stops; the phase stays what it was, and `start` goes on. Never rejects. */
  async stop(): Promise<void> {
    const part = this.#part;
    if (part === undefined) return;
    part.stop.abort();
    part.turns.release();
    await part.done;
  }

  /** Runs `work` while no step is under way; training goes on afterwards. */
  async undisturbed<T>(work: () => Promise<T>): Promise<T> {
    const letGo = await this.#part?.turns.hold();
    try {
      return await work();
    } finally {
      letGo?.();
    }
  }

  /** Stops and forgets the models on the device. */
  async dispose(): Promise<void> {
    await this.stop();
    for (const contender of this.contenders) contender.dispose();
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
