import { describe, expect, it } from "vitest";
import { differentialLayers } from "./patterns.js";

describe("differentialLayers", () => {
  const layers = (...args: Parameters<typeof differentialLayers>) => [...differentialLayers(...args)];

  it("counts from 0: all, every even one, the last quarter, none, or those named", () => {
    expect(layers("all", 4)).toEqual([0, 1, 2, 3]);
    expect(layers("alternate", 5)).toEqual([0, 2, 4]);
    expect(layers("quarter", 48)).toEqual([36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47]);
    expect(layers("quarter", 6)).toEqual([5]);
    expect(layers("quarter", 3)).toEqual([]);
    expect(layers("none", 4)).toEqual([]);
    expect(layers([3, 0, 3], 4)).toEqual([3, 0]);
  });

  it("names a layer that does not exist", () => {
    expect(() => layers([1, 4], 4)).toThrow("pattern: there is no layer 4; there are 4, from 0");
    expect(() => layers([-1], 4)).toThrow("there is no layer -1");
    expect(() => layers([0.5], 4)).toThrow("there is no layer 0.5");
  });
});
