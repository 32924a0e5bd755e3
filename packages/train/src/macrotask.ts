// Layer: train. One turn of the event loop: signals, timers and page events get their turn between two steps.
// Knows that Node has setImmediate and that browsers have message channels.

type Immediate = (callback: () => void) => unknown;

/** Resolves in a later turn of the event loop, without the delay that timers have. */
export function macrotask(): Promise<void> {
  const { setImmediate } = globalThis as { readonly setImmediate?: Immediate };
  return new Promise((resolve) => {
    if (setImmediate !== undefined) {
      setImmediate(resolve);
      return;
    }
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}
