// Layer: the WebGPU backend's entry for Node. Dawn's switches, as text. Knows how Dawn reads them, and none by name.

/** Switches of which each is there once, as Dawn takes the last of several: with that one's value, or the names of features of all. */
export function joinSwitches(switches: readonly string[]): string[] {
  const joined = new Map<string, string>();
  for (const entry of switches) {
    const name = entry.split("=", 1)[0];
    const before = joined.get(name);
    const adds = before !== undefined && name.endsWith("-dawn-features");
    joined.set(name, adds ? `${before},${entry.slice(name.length + 1)}` : entry);
  }
  return [...joined.values()];
}
