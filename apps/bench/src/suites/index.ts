// Layer: apps/bench, suites. All suites: one line each.
import type { Suite } from "../race.js";
import { cpu } from "./cpu.js";
import { cuda } from "./cuda.js";
import { decode } from "./decode.js";
import { ops } from "./ops.js";
import { train } from "./train.js";
import { webgpu } from "./webgpu.js";

export const suites: readonly Suite[] = [ops, train, decode, cpu, cuda, webgpu];
