// Layer: CUDA backend. Copies of device memory to the host, and waiting for what was enqueued: ordered at once, waited for in a turn of its own, so
// that what the caller enqueues meanwhile keeps the device busy. Knows the addon. Knows no buffer and no view.

import { type Addon, backendError, callNative } from "./addon.js";

/** Reads of more bytes wait on the spot: pinned memory for them would cost more than the wait. */
const MOST_PINNED_READ = 2 ** 22;

export class Reads {
  readonly #pending = new Set<Promise<unknown>>();

  constructor(
    private readonly addon: Addon,
    /** The device's number on the native side. */
    private readonly handle: number,
  ) {}

  /** Fills `bytes` from an address, after all that was enqueued before. @throws BackendError where the device failed at any of it */
  async into(address: number, bytes: Uint8Array): Promise<void> {
    const { addon, handle } = this;
    if (bytes.length > MOST_PINNED_READ) {
      callNative(() => addon.readNow(handle, address, bytes));
      return;
    }
    const read = callNative(() => addon.startRead(handle, address, bytes.length));
    const finished = Promise.resolve().then(() => addon.finishRead(handle, read, bytes));
    this.#pending.add(finished);
    try {
      await finished;
    } catch (error) {
      throw backendError(error);
    } finally {
      this.#pending.delete(finished);
    }
  }

  /** When nothing is on its way any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#pending);
  }
}
