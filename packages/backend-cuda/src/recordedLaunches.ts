// Layer: CUDA backend. The launches of a recording while it is made: which memory they have named so far, and which of them are held back until it
// is known what they become. Knows the order of what is enqueued. Knows no device, and not how a recording begins and ends.

import type { View } from "@diffmamba/tensor";
import type { Launch } from "./context.js";
import type { Fuser } from "./fuse.js";
import type { Product } from "./kernels/index.js";
import { Touched } from "./touched.js";

export class RecordedLaunches {
  readonly #touched = new Touched();

  /**
   * @param emit enqueues a launch as it is @param fuser makes one of several, and emits the same way; undefined where each stays alone
   */
  constructor(
    private readonly emit: (launch: Launch) => void,
    private readonly fuser: Fuser | undefined,
  ) {}

  launch(launch: Launch): void {
    this.#touched.launch(launch.args);
    if (this.fuser?.take(launch)) return;
    this.flush();
    this.emit(launch);
  }

  /** Before a view is cleared. */
  clear(view: View): void {
    this.#touched.view(view);
    this.flush();
  }

  /** Before a product goes to a library. */
  product(product: Product): void {
    this.#touched.product(product);
    this.flush();
  }

  /** Emits what is held back. */
  flush(): void {
    this.fuser?.flush();
  }

  /** Whether nothing so far was given memory of the view's buffer. */
  isUntouched(view: View): boolean {
    return !this.#touched.has(view);
  }
}
