// Layer: apps/bench, tests. Every peer of the matrix product gives the reference's result in every form, on one thread and on two, or
// is absent with a reason; and what the limits count.
import { reference } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import type { Entry, Peer } from "../race.js";
import { matmulOn, problem } from "../suites/ops/matmul.js";
import { memoryCopied, memoryRead, multiplyAdd } from "./limits.js";
import { type Form, forms, nativePeers, wasmPeers } from "./matmul.js";
import { singleNodeModel } from "./onnxModel.js";

/** The product by the reference backend. */
async function expected(form: Form): Promise<ArrayLike<number>> {
  await using device = reference();
  const entry = matmulOn(device, problem([7, 5, 9], form));
  const [data] = (await entry.result?.()) ?? [];
  entry.dispose?.();
  return data;
}

function expectClose(actual: ArrayLike<number>, wanted: ArrayLike<number>): void {
  expect(actual.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) expect(actual[i]).toBeCloseTo(wanted[i], 5);
}

/** An entry, or why there is none. */
async function opened(peer: Pick<Peer, "open">): Promise<Entry | string> {
  return peer.open().catch((error: unknown) => String(error));
}

describe.each(forms)("the product %s", (form) => {
  it.each(wasmPeers)("of $name is the reference's", async (peer) => {
    const entry = await peer.open(problem([7, 5, 9], form), 1);
    const [data] = (await entry.result?.()) ?? [];
    await entry.run();
    entry.dispose?.();
    expectClose(data, await expected(form));
    expect([entry.work, entry.backend]).toEqual([{ "GFLOP/s": 2 * 7 * 5 * 9 }, null]);
  });

  it.for(nativePeers.flatMap((peer) => [1, 2].map((threads) => ({ name: peer.name, peer, threads }))))(
    "of $name on $threads threads is the reference's",
    async ({ peer, threads }, { skip }) => {
      const entry = await opened({ open: () => peer.open(problem([7, 5, 9], form), threads) });
      if (typeof entry === "string") return skip(`${peer.name}: ${entry}`);
      const [data] = (await entry.result?.()) ?? [];
      await entry.run();
      entry.dispose?.();
      expectClose(data, await expected(form));
      expect(entry.name.startsWith(peer.name)).toBe(true);
      // Their threads spin for a while, which must not be another's time.
      expect(entry.restMs !== undefined).toBe(threads > 1);
    },
  );
});

describe("a limit of the machine", () => {
  it.for([
    { name: "multiply-add loop", limit: multiplyAdd },
    { name: "memory read", limit: (threads: number) => memoryRead(1 << 16, threads) },
    { name: "memory copy", limit: (threads: number) => memoryCopied(1 << 16, threads) },
  ])("is a $name on one thread and on two", async ({ name, limit }, { skip }) => {
    for (const threads of [1, 2]) {
      const entry = await opened(limit(threads));
      if (typeof entry === "string") return skip(entry);
      await entry.run();
      await entry.verify?.();
      const amounts = Object.values(entry.work);
      expect(amounts.length).toBeGreaterThan(0);
      for (const amount of amounts) expect(amount).toBeGreaterThan(0);
      expect(entry.name).toBe(threads === 1 ? name : `${name}, 2 threads`);
    }
  });

  it("moves as many bytes as it says, as often as a run repeats them", async ({ skip }) => {
    const [read, copied] = [await opened(memoryRead(1 << 20, 1)), await opened(memoryCopied(1 << 20, 1))];
    if (typeof read === "string" || typeof copied === "string") return skip(`${read}`);
    for (const { work } of [read, copied]) {
      expect((work["GB/s"] ?? 0) / (work.ms ?? 0)).toBe(1 << 20);
    }
  });
});

describe("an ONNX model written by hand", () => {
  it("is protobuf: field numbers with wire types, lengths, and sizes beyond 127 in more bytes than one", () => {
    const bytes = singleNodeModel("Gemm", { transA: 1 }, [["a", 300, 2]], ["c", 2, 300]);
    // IR version 10, then the graph with its length.
    expect([...bytes.subarray(0, 3)]).toEqual([8, 10, 7 * 8 + 2]);
    const text = String.fromCharCode(...bytes);
    expect(text).toContain("\x22\x04Gemm");
    expect(text).toContain("\x08\xac\x02");
    expect(text).toContain("\x0a\x06transA\x18\x01");
  });
});
