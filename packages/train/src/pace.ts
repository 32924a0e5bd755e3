// Layer: train. How fast a run goes: wall-clock time, tokens a second, time left. Nothing that is computed depends on it.
// Knows a clock. Knows no model and no file.

/** Share of the newest step in the running mean of a step's time. */
const NEWEST = 0.1;

export class Pace {
  readonly #now: () => number;
  readonly #before: number;
  readonly #started: number;
  #mark: number;
  #stepSeconds = 0;
  #tokens = 0;
  #mean: number | undefined;

  /**
   * @param now milliseconds, from any origin
   * @param before seconds that earlier parts of the run took
   */
  constructor(now: () => number, before: number) {
    this.#now = now;
    this.#before = before;
    this.#started = now();
    this.#mark = this.#started;
  }

  /** Seconds since the run began, over all its parts; evaluations and saves included, breaks between the parts not. */
  get seconds(): number {
    return this.#before + (this.#now() - this.#started) / 1000;
  }

  /** Starts the clock of the next step: what happened since the last one (an evaluation, a save) is no part of it. */
  resume(): void {
    this.#mark = this.#now();
  }

  /** A step with so many tokens is done. */
  step(tokens: number): void {
    const now = this.#now();
    const seconds = (now - this.#mark) / 1000;
    this.#mark = now;
    this.#stepSeconds += seconds;
    this.#tokens += tokens;
    this.#mean = this.#mean === undefined ? seconds : this.#mean + NEWEST * (seconds - this.#mean);
  }

  /** Tokens a second since the last call of {@link lap}; 0 before any time has passed. */
  get tokensPerSecond(): number {
    return this.#stepSeconds > 0 ? this.#tokens / this.#stepSeconds : 0;
  }

  /** Begins a new stretch for {@link tokensPerSecond}. */
  lap(): void {
    this.#stepSeconds = 0;
    this.#tokens = 0;
  }

  /** Seconds that so many steps will take at the recent pace. */
  left(steps: number): number {
    return steps * (this.#mean ?? 0);
  }
}
