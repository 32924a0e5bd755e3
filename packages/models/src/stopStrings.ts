// Stop strings in text that comes in pieces: what may be shown, and where it ends.
// Knows text. Knows no token and no model.

/**
 * Passes text on up to the first stop string. A piece that could be the beginning of one waits until it is known whether
 * it is. Where stop strings overlap, the one that is complete first counts, whatever the pieces are.
 */
export class StopFilter {
  readonly #stops: readonly string[];
  #waiting = "";
  #stopped: string | undefined;

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** The stop string that was found; then no more text comes. */
  get stopped(): string | undefined {
    return this.#stopped;
  }

  /** Takes the next piece. @returns the text that is now certain to come before any stop string */
  push(piece: string): string {
    if (this.#stopped !== undefined) return "";
    const text = this.#waiting + piece;
    let end = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      const own = at + stop.length;
      if (at < 0 || own > end || (own === end && stop.length <= (this.#stopped ?? "").length)) continue;
      end = own;
      this.#stopped = stop;
    }
    if (this.#stopped !== undefined) {
      this.#waiting = "";
      return text.slice(0, end - (this.#stopped as string).length);
    }
    const held = this.#heldBack(text);
    this.#waiting = text.slice(text.length - held);
    return text.slice(0, text.length - held);
  }

  /** What waits, when no more is to come. */
  end(): string {
    const rest = this.#waiting;
    this.#waiting = "";
    return rest;
  }

  /** Length of the longest end of the text that begins a stop string. */
  #heldBack(text: string): number {
    const longest = Math.max(0, ...this.#stops.map(({ length }) => length - 1));
    for (let n = Math.min(longest, text.length); n > 0; n--) {
      const end = text.slice(text.length - n);
      if (this.#stops.some((stop) => stop.length > n && stop.startsWith(end))) return n;
    }
    return 0;
  }
}
