// What the entry for Node passes on to Dawn.

import { expect, it } from "vitest";
import { joinSwitches } from "./switches.js";

it("passes each of Dawn's switches once, those that name features with the names of all", () => {
  const given = ["enable-dawn-features=a,b", "backend=vulkan", "enable-dawn-features=c", "disable-dawn-features=d"];
  expect(joinSwitches([...given, "backend=null", "verbose"])).toEqual([
    ...["enable-dawn-features=a,b,c", "backend=null", "disable-dawn-features=d", "verbose"],
  ]);
});
