// The leak detector: tells of tensors that the garbage collector found before anybody disposed of them. It frees nothing
// and saves nobody from disposing; it is there to find the place that forgot.
// Knows lifetimes. Knows no tensor but as an object.

/** What is known of a tensor that was lost. */
export interface Leak {
  readonly shape: readonly number[];
  readonly bytes: number;
  /** The stack of the call that made it. */
  readonly madeAt: string;
}

export class LeakDetector {
  readonly #registry: FinalizationRegistry<Leak>;

  constructor(onLeak: (leak: Leak) => void) {
    this.#registry = new FinalizationRegistry(onLeak);
  }

  watch(tensor: object, shape: readonly number[], bytes: number): void {
    const madeAt = new Error("made").stack?.split("\n").slice(2).join("\n") ?? "";
    this.#registry.register(tensor, { shape, bytes, madeAt }, tensor);
  }

  forget(tensor: object): void {
    this.#registry.unregister(tensor);
  }
}
