// The shaders' texts: those that are in the package are those of the files, and the dialect's rules.

import { execFile } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BackendError } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { type ShaderParts, shaderText } from "./template.js";

const script = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), "scripts", "build-shaders.mjs");

it("shaders.generated.ts is what the files in wgsl/ say", async () => {
  await promisify(execFile)(process.execPath, [script, "--check"]);
});

function expand(text: string, change: Partial<ShaderParts> = {}, library: Record<string, string> = {}): string {
  const bindings = [{ names: ["x", "y"], element: "f32", written: true }];
  const parts = { name: "test", text, constants: {}, bindings, uniforms: [], directives: [], ...change };
  return shaderText(parts, library);
}

describe("the dialect", () => {
  it("includes a file once for each argument, with what it includes", () => {
    const text = "#include part(a)\n#include part(b)\n#include part(a)";
    const library = { part: "#include whole\nfn @@_f() {}", whole: "fn whole() {}" };
    const out = expand(text, {}, library);
    for (const name of ["fn a_f()", "fn b_f()", "fn whole()"]) expect(out.split(name)).toHaveLength(2);
  });

  it("keeps what its conditions say, also inside others and in what is not kept", () => {
    const text =
      "#if one\n1\n#if two\n12\n#else\n10\n#endif\n#else\n0\n#if two\n02\n#endif\n#endif\n#if !three\nnot3\n#endif";
    const lines = (constants: Record<string, boolean>) => expand(text, { constants }).split("\n").slice(1).join(" ");
    expect(lines({ one: true, two: true })).toBe("1 12 not3");
    expect(lines({ one: true })).toBe("1 10 not3");
    expect(lines({ two: true, three: true })).toBe("0 02");
    expect(lines({})).toBe("0 not3");
  });

  it("makes flags of buffers, constants of numbers, and one variable of names that share a binding", () => {
    const out = expand("#if HAS_y\n$x[0] + $y[n]\n#endif", { constants: { n: 3, on: true } });
    expect(out).toContain("const n = 3;");
    expect(out).toContain("data_x[0] + data_x[n]");
    expect(out).toContain("var<storage, read_write> data_x: array<f32>;");
    expect(out).not.toContain("const on");
  });

  it("repeats lines as a loop or, with the flag for it, as copies, also inside others", () => {
    const text = "#repeat i two\n#repeat k 2\na[@i][@k]\n#endrepeat\n#endrepeat";
    const lines = (constants: Record<string, number | boolean>) =>
      expand(text, { constants })
        .split("\n")
        .filter((line) => !line.startsWith("const"));
    expect(lines({ two: 2, unrolled: true }).filter((line) => line.startsWith("a"))).toEqual([
      ...["a[0u][0u]", "a[0u][1u]", "a[1u][0u]", "a[1u][1u]"],
    ]);
    expect(lines({ two: 2 }).join("")).toContain(
      "for (var i = 0u; i < 2u; i++) {for (var k = 0u; k < 2u; k++) {a[i][k]}}",
    );
  });

  it.each([
    ["#repeat i many\n#endrepeat", {}, /repeats i many, which is no count/],
    ["#repeat i 2", {}, /lacks an #endrepeat/],
    ["#include nothing", {}, /includes nothing, which is no file/],
    ["#if a\n1", {}, /lacks an #endif/],
    ["#endif", {}, /an #endif too many/],
    ["#define a", {}, /unknown directive, #define/],
    ["$z[0]", {}, /uses \$z, which its dispatch does not bind/],
  ])("refuses %j", (text, change, message) => {
    expect(() => expand(text, change)).toThrow(BackendError);
    expect(() => expand(text, change)).toThrow(message);
  });
});
