// Layer: tests of the CPU backend. A program that faults.test.ts runs in processes of their own, which may be given too
// little memory, be cut short, or end badly. Its first argument names a case; each line that it prints is JSON.
// Knows Linux's limits. Knows no test.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { causalConv1d, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import { cpu, cpuAvailability } from "./index.js";
import { Training } from "./training.testing.js";

const MB = 2 ** 20;

/** One of the numbers of /proc/self/status. */
function status(name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

/** Lets this process have so many more bytes of addresses than it has now. */
function allowMore(bytes: number): void {
  limitAddresses(String(status("VmSize") * 1024 + bytes));
}

function limitAddresses(bytes: string): void {
  execFileSync("prlimit", [`--pid=${process.pid}`, `--as=${bytes}:`]);
}

/** Says what became of something: a value, or an error. */
async function report(what: string, action: () => unknown): Promise<void> {
  try {
    console.log(JSON.stringify({ what, value: await action() }));
  } catch (error) {
    const { name, message } = error as Error;
    console.log(JSON.stringify({ what, error: `${name}: ${message}` }));
  }
}

/** The first element of a product of two matrices of ones, which is their size. */
async function product(size: number, threads: number): Promise<number> {
  await using device = await cpu({ threads });
  using x = device.ones([size, size]);
  using y = x.matmul(x);
  return (await y.data())[0];
}

const cases: Readonly<Record<string, () => Promise<void>>> = {
  availability: () => report("availability", cpuAvailability),

  /** Threads that the system refuses. */
  async threads() {
    await product(10, 1);
    allowMore(300 * MB);
    await report("1024 threads", () => product(300, 1024));
    await report("1 thread", () => product(300, 1));
    await report("2 threads", () => product(300, 2));
    limitAddresses("unlimited");
    await report("1024 threads at last", () => product(300, 1024));
  },

  /** Memory that the system refuses: to a tensor, and to a kernel, which keeps a sum for each row of the batch. */
  async memory() {
    await using device = await cpu({ threads: 2 });
    using w = device.ones([4096, 4]);
    using many = device.ones([768, 1, 4096]);
    using one = device.ones([1, 1, 4096]);
    const gradient = async (x: Tensor) => {
      const { value, gradients } = valueAndGrad(() => causalConv1d(x, w).y.sum(), [w]);
      using kept = gradients[0];
      value.dispose();
      return (await kept.data())[3];
    };
    const activations = [0, 1, 2].map(() => device.zeros(many.shape));
    for (const tensor of activations) tensor.dispose();
    const usual = await gradient(one);
    allowMore(32 * MB);
    await report("kernel", () => gradient(many));
    await report("tensor", () => device.zeros([40_000, 1000]).dispose());
    await report("smaller", async () => (await gradient(one)) / usual);
    limitAddresses("unlimited");
    await report("at last", async () => (await gradient(many)) / usual);
  },

  /** Two workers train side by side. */
  async workers() {
    const one = () =>
      new Promise((resolve, reject) => {
        const worker = new Worker(process.argv[1], { workerData: "train" });
        worker.once("message", resolve).once("error", reject);
      });
    await report("losses", () => Promise.all([one(), one()]));
  },

  /** Workers that are ended in a kernel, or anywhere; each holds more than 64 MB. */
  async terminate() {
    const after: number[] = [];
    for (let i = 0; i < 8; i++) {
      const worker = new Worker(process.argv[1], { workerData: "work" });
      await new Promise((resolve) => worker.once("message", resolve));
      await new Promise((resolve) => setTimeout(resolve, 20));
      await worker.terminate();
      after.push(Math.round(status("VmRSS") / 1024));
    }
    await report("megabytes more", () => Math.max(...after) - after[0]);
    await report("product", () => product(300, 2));
  },

  /** The process ends while a worker is in a kernel and helpers sleep. */
  async exit() {
    const worker = new Worker(process.argv[1], { workerData: "work" });
    await new Promise((resolve) => worker.once("message", resolve));
    await report("product", () => product(300, 3));
    process.exit(7);
  },

  /** The process comes to its end with everything left lying about. */
  async leave() {
    const device = await cpu({ threads: 3 });
    const x = device.ones([300, 300]);
    await report("product", async () => (await x.matmul(x).data())[0]);
  },
};

async function train(): Promise<number[]> {
  await using device = await cpu({ threads: 2 });
  const training = new Training(device);
  const losses: number[] = [];
  for (let i = 0; i < 5; i++) {
    const [loss, norm] = training.step();
    losses.push(await loss.item());
    loss.dispose();
    norm.dispose();
  }
  return losses;
}

/** Products of large matrices, one after the other, until somebody ends it. */
async function work(): Promise<void> {
  const device = await cpu({ threads: 2 });
  device.ones([4096, 4096]);
  const x = device.ones([2048, 2048]);
  parentPort?.postMessage("at work");
  for (;;) x.matmul(x).dispose();
}

if (isMainThread) await cases[process.argv[2]]();
else if (workerData === "train") parentPort?.postMessage(await train());
else await work();
