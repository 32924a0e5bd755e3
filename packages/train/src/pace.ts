// Layer: train. How fast a run goes: wall-clock time, tokens a second, time left. Nothing that is computed depends on it.
// Knows a clock. Knows no model and no file.

/** Share of the newest step in the running mean of a step's time. */
const NEWEST = 0.1;

export class Pace {
  readonly #now: () => number;
  readonly #before: number;
  readonly #started: number;
  #mark: number;
  /** Running means over steps: of their seconds and of their tokens. */
  #mean: number | undefined;
  #tokens = 0;

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
    // A loss is read when the next step is under way, so single steps look long or instant by turns: only means tell.
    const first = this.#mean === undefined;
    this.#mean = first ? seconds : (this.#mean ?? 0) + NEWEST * (seconds - (this.#mean ?? 0));
    this.#tokens = first ? tokens : this.#tokens + NEWEST * (tokens - this.#tokens);
  }

  /** Tokens a second at the recent pace; 0 before any time has passed. */
  get tokensPerSecond(): number {
    return this.#mean ? this.#tokens / this.#mean : 0;
  }

  /** Seconds that so many steps will take at the recent pace. */
  left(steps: number): number {
    return steps * (this.#mean ?? 0);
  }
}
