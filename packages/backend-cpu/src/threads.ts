// How many threads are meant where nobody says: as many as this process may use, whatever the machine has.
// Knows the operating system. Knows no pool.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/**
 * Processors' worth of time that a Linux container may use, by its control group (`cpu.max`, version 2): a quota and a
 * period in microseconds, or "max" where there is no limit. Node tells this from version 22 on, and the processors of the
 * whole machine before.
 */
export function quotaOf(cpuMax: string): number {
  const [quota, period] = cpuMax.trim().split(/\s+/).map(Number);
  return quota > 0 && period > 0 ? quota / period : Number.POSITIVE_INFINITY;
}

function containerQuota(): number {
  try {
    return quotaOf(readFileSync("/sys/fs/cgroup/cpu.max", "utf8"));
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Threads for one device that has the machine to itself: at least 1, and no more than can run at once. */
export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(containerQuota())));
}
