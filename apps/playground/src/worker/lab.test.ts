// Layer: apps/playground, worker. A run from beginning to end on the reference backend: both models in step, paused, made longer, lost and
// found again, generated from, exported and loaded.
import { describe, expect, it } from "vitest";
import type { Event } from "../protocol.js";
import { isPhase, quick, rhyme, testLab } from "./lab.testing.js";

const steps = (events: readonly Event[], slot: string) =>
  events.flatMap((event) => (event.type === "step" && event.slot === slot ? [event.step] : []));
const bits = (events: readonly Event[], slot: string) =>
  events.flatMap((event) => (event.type === "step" && event.slot === slot ? [event.bits] : []));
const heldOut = (events: readonly Event[], slot: string) =>
  events.flatMap((event) => (event.type === "heldOut" && event.slot === slot ? [event.step] : []));

async function finishedRun(settings = quick) {
  const test = testLab();
  await test.lab.open({});
  const finished = test.until(isPhase("finished"));
  const begun = test.until((event) => event.type === "run");
  await test.lab.train({ name: "rhyme", text: rhyme, settings });
  await finished;
  const event = await begun;
  if (event.type !== "run") throw new Error("no run");
  return { ...test, run: event.run };
}

describe("a run", () => {
  it("trains both models in step, scores them, and shows what they write", async () => {
    const { events, run } = await finishedRun();
    expect(run.models.map(({ title }) => title)).toEqual(["Mamba-2", "Diff-Mamba-2"]);
    expect(run.models[0]?.differential).toEqual([]);
    expect(run.models[1]?.differential).toEqual([0]);
    for (const slot of ["vanilla", "differential"]) {
      expect(steps(events, slot)).toEqual([1, 2, 3, 4, 5, 6]);
      expect(heldOut(events, slot)).toEqual([0, 3, 6]);
      expect(bits(events, slot)[5]).toBeLessThan(bits(events, slot)[0] as number);
    }
    const at = { vanilla: 0, differential: 0 };
    for (const event of events) {
      if (event.type !== "step") continue;
      at[event.slot] = event.step;
      expect(Math.abs(at.vanilla - at.differential)).toBeLessThanOrEqual(2);
    }
    const written = events.flatMap((event) => (event.type === "sampleText" ? [event.text] : []));
    expect(written.join("").length).toBe(2 * 2 * quick.sampleTokens);
    expect(events.some((event) => event.type === "step" && event.lambda !== undefined)).toBe(true);
  });

  it("stands still while paused, and goes on", async () => {
    const test = testLab();
    await test.lab.open({});
    const third = test.until((event) => event.type === "step" && event.step === 3);
    await test.lab.train({ name: "rhyme", text: rhyme, settings: { ...quick, steps: 12 } });
    await third;
    await test.lab.pause();
    const before = test.events.length;
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(test.events.length).toBe(before);
    const finished = test.until(isPhase("finished"));
    await test.lab.resume();
    await finished;
    expect(steps(test.events, "vanilla")).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
  });

  it("is the same run when it is made longer as when it was long at once", async () => {
    const long = await finishedRun({ ...quick, steps: 9 });
    const short = await finishedRun({ ...quick, steps: 6 });
    const finished = short.until(isPhase("finished"));
    await short.lab.extend({ steps: 3 });
    await finished;
    for (const slot of ["vanilla", "differential"]) expect(bits(short.events, slot)).toEqual(bits(long.events, slot));
  });

  it("moves to another device where it stood", async () => {
    const whole = await finishedRun({ ...quick, steps: 12 });
    const test = testLab();
    await test.lab.open({});
    const fourth = test.until((event) => event.type === "step" && event.step === 4);
    await test.lab.train({ name: "rhyme", text: rhyme, settings: { ...quick, steps: 12 } });
    await fourth;
    const finished = test.until(isPhase("finished"));
    await test.lab.open({ backend: "reference" });
    expect(test.opened()).toBe(2);
    await finished;
    for (const slot of ["vanilla", "differential"]) expect(bits(test.events, slot)).toEqual(bits(whole.events, slot));
  });

  it("keeps what was saved when the device is lost, and goes on from there on another one", async () => {
    const whole = await finishedRun({ ...quick, steps: 12 });
    const test = testLab();
    await test.lab.open({});
    const fifth = test.until((event) => event.type === "step" && event.step === 5);
    const interrupted = test.until((event) => event.type === "interrupted");
    await test.lab.train({ name: "rhyme", text: rhyme, settings: { ...quick, steps: 12 } });
    await fifth;
    test.lose();
    expect(await interrupted).toMatchObject({ savedStep: 3, message: expect.stringContaining("the device was lost") });
    const finished = test.until(isPhase("finished"));
    const count = test.events.length;
    await test.lab.resume();
    await finished;
    expect(bits(test.events.slice(count), "vanilla")).toEqual(bits(whole.events, "vanilla").slice(3));
  });

  it("refuses a text that is too short, and settings that cannot be, and says why", async () => {
    const { lab } = testLab();
    await lab.open({});
    await expect(lab.train({ name: "note", text: "too short", settings: quick })).rejects.toThrow(
      "note holds 9 characters; at least 402 are needed",
    );
    await expect(lab.train({ name: "rhyme", text: rhyme, settings: { ...quick, headDim: 10 } })).rejects.toThrow(
      "headDim is 10; it must be even, and divide twice the width, 32.",
    );
  });
});

describe("generation", () => {
  it("streams text from either model while a run stands still, the same for the same seed", async () => {
    const test = testLab();
    await test.lab.open({});
    await expect(
      test.lab.generate({ slot: "vanilla", prompt: "the", temperature: 1, maxTokens: 4, seed: 1 }, () => undefined),
    ).rejects.toThrow("Mamba-2 is not there yet: train it first.");
    await test.lab.train({ name: "rhyme", text: rhyme, settings: { ...quick, steps: 1000 } });
    const texts: string[] = [];
    for (const slot of ["vanilla", "differential"] as const) {
      let text = "";
      const ask = { slot, prompt: "the cat", temperature: 0.8, maxTokens: 12, seed: 3 };
      const result = await test.lab.generate(ask, (piece) => {
        text += piece;
      });
      expect(result).toMatchObject({ tokens: 12, stopped: false });
      texts.push(text);
    }
    expect(texts.map(({ length }) => length)).toEqual([12, 12]);
    await expect(
      test.lab.generate({ slot: "vanilla", prompt: "Ω", temperature: 1, maxTokens: 4, seed: 1 }, () => undefined),
    ).rejects.toThrow("Ω");
    await test.lab.pause();
  });

  it("stops when it is told to", async () => {
    const { lab } = await finishedRun();
    let pieces = 0;
    const ask = { slot: "vanilla", prompt: "the", temperature: 1, maxTokens: 5000, seed: 1 } as const;
    const result = await lab.generate(ask, () => {
      if (++pieces === 3) void lab.cancel();
    });
    expect(result).toMatchObject({ tokens: 3, stopped: true });
  });
});

describe("checkpoints", () => {
  it("come back from the zip that they were exported to, and write the same", async () => {
    const { lab } = await finishedRun();
    const { name, zip } = await lab.export({ slot: "differential" });
    expect(name).toBe("diff-mamba-2-step-6");
    const file = new File([zip as Uint8Array<ArrayBuffer>], `${name}.zip`);
    const summary = await lab.load({ kind: "zip", name: file.name, file });
    expect(summary).toMatchObject({ slot: "loaded", differential: [0], layers: 1, width: 16 });
    const write = async (slot: "differential" | "loaded") => {
      let text = "";
      await lab.generate({ slot, prompt: "the", temperature: 0, maxTokens: 20, seed: 0 }, (piece) => {
        text += piece;
      });
      return text;
    };
    expect(await write("loaded")).toBe(await write("differential"));
    // It stays when the device changes.
    await lab.open({});
    expect(await write("loaded")).toBe(await write("differential"));
  });

  it("that are cut short or none are refused by name, and change nothing", async () => {
    const { lab } = await finishedRun();
    const { zip } = await lab.export({ slot: "vanilla" });
    const bytes = zip as Uint8Array<ArrayBuffer>;
    const cut = new File([bytes.slice(0, bytes.length / 2)], "cut.zip");
    await expect(lab.load({ kind: "zip", name: "cut.zip", file: cut })).rejects.toThrow("cut.zip cannot be unpacked");
    const files = [{ path: "run/config.json", file: new File(["{}"], "config.json") }];
    await expect(lab.load({ kind: "files", name: "run", files })).rejects.toThrow();
    await expect(
      lab.load({ kind: "files", name: "empty", files: [{ path: "a.txt", file: new File([""], "a.txt") }] }),
    ).rejects.toThrow("empty holds no checkpoint: expected config.json");
    expect(
      await lab.generate({ slot: "vanilla", prompt: "the", temperature: 1, maxTokens: 2, seed: 1 }, () => undefined),
    ).toMatchObject({
      tokens: 2,
    });
  });
});
