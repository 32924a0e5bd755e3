// The compilers: which C++ compiler and which nvcc there are, and how their flags are. Knows platforms and architectures.
// Knows no source of this package.

import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

/** The headers of Node-API: where they are, and lists of the functions in them. */
const nodeApi = () => createRequire(import.meta.url)("node-api-headers");

/** What a program prints, or undefined where it does not end with 0. */
function outputOf(command, args) {
  const { status, stdout } = spawnSync(command, args, { input: "", encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}

/**
 * The first C++ compiler that works: CXX where it is set, else g++, c++ or clang++. One for Microsoft's C++ library is passed
 * over: it takes other flags.
 * @returns {{ command: string, version: string, platform: string } | undefined}
 */
export function findCompiler() {
  const platforms = { linux: /linux/, darwin: /darwin|macos/, win32: /mingw|windows-gnu/ };
  for (const command of process.env.CXX ? [process.env.CXX] : ["g++", "c++", "clang++"]) {
    const triple = outputOf(command, ["-dumpmachine"]) ?? "";
    const platform = Object.keys(platforms).find((name) => platforms[name].test(triple));
    if (platform) return { command, version: outputOf(command, ["--version"]).split("\n")[0], platform };
  }
  return undefined;
}

/** Flags for every C++ source. */
export const compileFlags = ({ platform }) => [
  "-std=c++17",
  "-O2",
  "-fvisibility=hidden",
  "-Wall",
  "-Wextra",
  `-I${nodeApi().include_dir}`,
  ...(platform === "win32" ? [] : ["-fPIC"]),
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
  const hasStatic = path.isAbsolute(outputOf(command, ["-print-file-name=libstdc++.a"]) ?? "");
  const own = portable ? ["-s", ...(hasStatic ? ["-static-libstdc++", "-static-libgcc"] : [])] : [];
  switch (platform) {
    case "darwin":
      return ["-bundle", "-undefined", "dynamic_lookup"];
    case "win32":
      return ["-shared", "-static", ...own, ...importLibraries(command, folder)];
    default: {
      // What is linked in for good stays inside: Node has a C++ library of its own.
      const script = path.join(folder, "exports.map");
      writeFileSync(script, "{ global: napi_register_module_v*; node_api_module_get_api_version_v*; local: *; };\n");
      return ["-shared", ...own, `-Wl,--version-script=${script}`, "-ldl"];
    }
  }
}

/**
 * The CUDA compiler: NVCC where it is set, else the one on PATH, of CUDA_HOME, or where the toolkit is usually installed.
 * @returns {{ command: string, version: string } | undefined}
 */
export function findNvcc() {
  const { NVCC, CUDA_HOME, CUDA_PATH } = process.env;
  const homes = [CUDA_HOME, CUDA_PATH, "/usr/local/cuda"].filter(Boolean);
  const candidates = NVCC ? [NVCC] : ["nvcc", ...homes.map((home) => path.join(home, "bin", "nvcc"))];
  for (const command of candidates) {
    if (command !== "nvcc" && command !== NVCC && !existsSync(command)) continue;
    const text = outputOf(command, ["--version"]);
    if (text !== undefined) return { command, version: text };
  }
  return undefined;
}

/**
 * What kernels are compiled for: machine code of the devices that people have, and PTX, which the driver compiles for any other
 * from sm_80 on.
 */
export const architectures = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"];

/** Flags that make a compressed fatbin of one source for these architectures. */
export const nvccFlags = (wanted) => [
  "-std=c++17",
  "-O3",
  "-fatbin",
  "--compress-mode=size",
  // A note on what unused template parameters cost is none of ours.
  "-diag-suppress=177,550",
  ...wanted.flatMap((name) => ["-gencode", `arch=${name.replace("sm", "compute")},code=${name}`]),
  ...(wanted === architectures ? ["-gencode", "arch=compute_80,code=compute_80"] : []),
];
