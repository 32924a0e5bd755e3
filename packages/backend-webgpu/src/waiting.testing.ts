// For tests: how Dawn waits. Its binding for Node asks whether what is awaited is done each time that the event loop turns, on one of the
// cores that a driver on the processor computes with. In tests, which often wait and never in a hurry, it asks every millisecond.

interface Turns {
  setImmediate(callback: (...args: unknown[]) => void, ...args: unknown[]): unknown;
}

const patient = Symbol.for("@diffmamba/backend-webgpu: setImmediate that waits");

/** Native code other than what `bind` makes is Dawn's alone. */
function isDawns(callback: unknown): boolean {
  return typeof callback === "function" && callback.name === "" && /\{\s*\[native code\]\s*\}$/.test(String(callback));
}

const turns = globalThis as unknown as Turns & { [patient]?: true };

if (turns[patient] === undefined) {
  const { setImmediate: atOnce } = turns;
  turns.setImmediate = (callback, ...args) =>
    isDawns(callback) ? setTimeout(callback, 1, ...args) : atOnce(callback, ...args);
  turns[patient] = true;
}
