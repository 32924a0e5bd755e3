// Depth patterns: which layers of a model are differential.
// Knows numbers of layers. Knows no mixer.

/** "all"; "alternate", the even layers counted from 0; "quarter", the last quarter; or the layers themselves. */
export type DepthPattern = "all" | "alternate" | "quarter" | "none" | readonly number[];

/** Layers, counted from 0, that are differential under a pattern. @throws RangeError for a layer that does not exist */
export function differentialLayers(pattern: DepthPattern, layers: number): Set<number> {
  const indices = Array.from({ length: layers }, (_, i) => i);
  switch (pattern) {
    case "none":
      return new Set();
    case "all":
      return new Set(indices);
    case "alternate":
      return new Set(indices.filter((i) => i % 2 === 0));
    case "quarter":
      return new Set(indices.filter((i) => i >= layers - Math.floor(layers / 4)));
    default: {
      const wrong = pattern.find((i) => !Number.isInteger(i) || i < 0 || i >= layers);
      if (wrong !== undefined)
        throw new RangeError(`pattern: there is no layer ${wrong}; there are ${layers}, from 0.`);
      return new Set(pattern);
    }
  }
}
