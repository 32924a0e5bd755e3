// Layer: datasets. Pieces of files that are kept while they are in use: those used longest ago go first. Knows no file.

export class WindowCache<T> {
  readonly #windows = new Map<string, Promise<T>>();
  readonly #limit: number;

  /** @param limit pieces that are kept; at least one */
  constructor(limit: number) {
    this.#limit = Math.max(1, limit);
  }

  /** The piece of this name, loaded where it is not here. A failed load is tried again, not remembered. */
  get(name: string, load: () => Promise<T>): Promise<T> {
    let window = this.#windows.get(name);
    if (window !== undefined) this.#windows.delete(name);
    else {
      window = load();
      window.catch(() => this.#windows.delete(name));
      for (const oldest of this.#windows.keys()) {
        if (this.#windows.size < this.#limit) break;
        this.#windows.delete(oldest);
      }
    }
    this.#windows.set(name, window);
    return window;
  }
}
