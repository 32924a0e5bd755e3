// The C++ compiler: which one there is, what it compiles for, and how its flags are for that. Knows platforms.
// Knows no source of this package.

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

/** The headers of Node-API: where they are, and lists of the functions in them. */
const nodeApi = () => createRequire(import.meta.url)("node-api-headers");

/** What a program prints, or undefined where it does not end with 0. */
function outputOf(command, args) {
  const { status, stdout } = spawnSync(command, args, { input: "", encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}

/** Platform and architecture, by Node's names, of a compiler's target such as `aarch64-linux-gnu`. */
function platformOf(triple) {
  const platforms = { linux: /linux/, darwin: /darwin|macos/, win32: /mingw|windows-gnu/ };
  const platform = Object.keys(platforms).find((name) => platforms[name].test(triple));
  const cpu = triple.split("-")[0];
  const arch = { x86_64: "x64", aarch64: "arm64", arm64: "arm64" }[cpu] ?? cpu;
  return platform && { platform, arch };
}

/**
 * The first compiler that works: CXX where it is set, else g++, c++ or clang++. One for Microsoft's C++ library is passed
 * over: it takes other flags.
 * @returns {{ command: string, version: string, platform: string, arch: string } | undefined}
 */
export function findCompiler() {
  for (const command of process.env.CXX ? [process.env.CXX] : ["g++", "c++", "clang++"]) {
    const target = platformOf(outputOf(command, ["-dumpmachine"]) ?? "");
    if (target) return { command, version: outputOf(command, ["--version"]).split("\n")[0], ...target };
  }
  return undefined;
}

/** Instruction sets of an architecture from the least to the best, with the compiler's flags. */
export const instructionSets = (arch) => ({
  base: [],
  ...(arch === "x64" && {
    avx2: ["-mavx2", "-mfma"],
    avx512: ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
  }),
});

/** The best set that this machine has, by what the compiler says of it. */
export function nativeInstructionSet({ command, arch }) {
  const macros = outputOf(command, ["-march=native", "-dM", "-E", "-x", "c++", "-"]) ?? "";
  const has = (...names) => names.every((name) => macros.includes(`#define __${name}__ `));
  const known = instructionSets(arch);
  if (known.avx512 && has("AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL", "FMA")) return "avx512";
  return known.avx2 && has("AVX2", "FMA") ? "avx2" : "base";
}

/** Flags for every source. */
export const compileFlags = ({ platform, version }) => [
  "-std=c++17",
  "-O3",
  "-fno-math-errno",
  "-fno-trapping-math",
  "-ffp-contract=fast",
  "-fvisibility=hidden",
  "-Wall",
  "-Wextra",
  "-Wno-psabi",
  "-pthread",
  `-I${nodeApi().include_dir}`,
  ...(platform === "win32" ? [] : ["-fPIC"]),
  // On Windows gcc aligns the stack to 16 bytes alone (its bug 54412), and would keep vectors of 32 there as if it were more.
  ...(platform === "win32" && !version.includes("clang") ? ["-Wa,-muse-unaligned-vector-move"] : []),
];

/** Windows wants to know where the functions of Node come from: a library made of the headers' lists. */
function importLibraries(command, folder) {
  const dlltool = outputOf(command, ["-print-prog-name=dlltool"]) ?? "dlltool";
  return Object.values(nodeApi().def_paths).map((definitions) => {
    const library = path.join(folder, `lib${path.basename(definitions, ".def")}.a`);
    const { status, stderr } = spawnSync(dlltool, ["-d", definitions, "-l", library], { encoding: "utf8" });
    if (status !== 0) throw new Error(`${dlltool} made no import library: ${stderr}`);
    return library;
  });
}

/**
 * Flags for the one link, after the objects.
 * @param portable whether the result is for other machines, which need not have this compiler's libraries
 * @param folder where files go that the linker needs
 */
export function linkFlags({ command, platform }, portable, folder) {
  // Not every system that has gcc has its libraries in this form; then those of the oldest system it is built on must do.
  const hasStatic = path.isAbsolute(outputOf(command, ["-print-file-name=libstdc++.a"]) ?? "");
  const own = portable ? ["-s", ...(hasStatic ? ["-static-libstdc++", "-static-libgcc"] : [])] : [];
  switch (platform) {
    case "darwin":
      return ["-bundle", "-undefined", "dynamic_lookup", "-pthread"];
    case "win32":
      // Windows has none of the compiler's libraries.
      return ["-shared", "-static", "-pthread", ...own, ...importLibraries(command, folder)];
    default: {
      // What is linked in for good stays inside: Node has a C++ library of its own.
      const script = path.join(folder, "exports.map");
      writeFileSync(script, "{ global: napi_register_module_v*; node_api_module_get_api_version_v*; local: *; };\n");
      return ["-shared", "-pthread", ...own, `-Wl,--version-script=${script}`, "-ldl"];
    }
  }
}
