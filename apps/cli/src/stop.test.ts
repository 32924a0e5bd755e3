// Layer: apps/cli, tests. Runs of the real command that a signal stops, at several moments, and that go on to the same bits.
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Started, smallest, someText, type Workplace, workplace } from "./command.testing.js";

const steps = 100;
let place: Workplace;
let whole: Buffer;

const flags = (out: string) => ["train", ...smallest, "--data", "text.txt", "--out", out, "--steps", String(steps)];
const weights = (out: string) => place.read(`${out}/step-${steps}/model.safetensors`);

beforeAll(async () => {
  place = workplace();
  place.write("text.txt", someText(20_000));
  await place.json(flags("whole"));
  whole = weights("whole");
});
afterAll(() => place?.dispose());

/** Waits until `there` holds. @throws Error where the run ends before */
async function until(run: Started, there: () => boolean): Promise<void> {
  let ended = false;
  void run.ended.then(() => {
    ended = true;
  });
  while (!there()) {
    if (ended) throw new Error(`the run ended before its moment came:\n${(await run.ended).stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const linesOf = (out: string): number => {
  const file = place.at(out, "metrics.jsonl");
  return existsSync(file) ? readFileSync(file, "utf8").split("\n").length - 1 : 0;
};

describe("a run that is stopped by a signal", () => {
  it.each([
    ["SIGTERM", 143, "as its folder appears", (out: string) => existsSync(place.at(out, "plan.json"))],
    ["SIGINT", 130, "at its first steps", (out: string) => linesOf(out) >= 1],
    ["SIGTERM", 143, "in the middle", (out: string) => linesOf(out) >= 40],
    [
      "SIGINT",
      130,
      "as a checkpoint is written",
      (out: string) => existsSync(place.at(out, "step-20.tmp")) || linesOf(out) > 30,
    ],
  ] as const)("%s (exit code %i) %s saves and goes on to the same bits", async (signal, code, moment, there) => {
    const out = `stopped ${moment}`;
    const run = place.start([...flags(out), "--json"]);
    await until(run, () => there(out));
    run.process.kill(signal);
    const outcome = await run.ended;
    expect(outcome, outcome.stderr).toMatchObject({ code });
    const { stopped, step } = JSON.parse(outcome.stdout);
    expect(stopped).toBe("signal");
    expect(step).toBeLessThan(steps);
    expect(outcome.stderr).toContain("stopping: the step under way is finished and saved");
    expect(readdirSync(place.at(out)).filter((name) => /lock|tmp/.test(name))).toEqual([]);
    const rest = ["--data", "text.txt", "--steps", String(steps)];
    const end = await place.json(["train", "--resume", "--out", out, ...(step === 0 ? rest : [])]);
    expect(end).toMatchObject({ stopped: "finished", step: steps });
    expect(weights(out).equals(whole), moment).toBe(true);
    expect(linesOf(out)).toBe(steps);
  });

  it("says without --json how to go on", async () => {
    const run = place.start(flags("told"));
    await until(run, () => linesOf("told") >= 3);
    run.process.kill("SIGTERM");
    expect((await run.ended).stdout).toMatch(
      /^saved told\/step-\d+; go on with: diffmamba train --resume --out told\n$/,
    );
  });

  it("exits at once at a second signal, and goes on from its last checkpoint", async () => {
    const run = place.start([...flags("twice"), "--json"]);
    await until(run, () => existsSync(place.at("twice/last")) && linesOf("twice") >= 12);
    run.process.kill("SIGTERM");
    run.process.kill("SIGINT");
    const { code, stdout } = await run.ended;
    expect([130, 143]).toContain(code);
    expect(stdout).toBe("");
    await place.json(["train", "--resume", "--out", "twice"]);
    expect(weights("twice").equals(whole)).toBe(true);
  });

  it("ends an evaluation with the signal's exit code", async () => {
    place.write("long.txt", someText(300_000));
    mkdirSync(place.at("temporary"));
    const run = place.start(["eval", "--checkpoint", "whole", "--data", "long.txt"], { TMPDIR: place.at("temporary") });
    await until(run, () => readdirSync(place.at("temporary")).length > 0);
    run.process.kill("SIGTERM");
    const { code, stdout, stderr } = await run.ended;
    expect({ code, stdout, stderr }).toMatchObject({ code: 143, stdout: "" });
    expect(stderr).toContain("stopped by SIGTERM; nothing was scored");
    expect(readdirSync(place.at("temporary"))).toEqual([]);
  });

  it("killed outright leaves a run that goes on to the same bits", async () => {
    const run = place.start(flags("killed"));
    await until(run, () => existsSync(place.at("killed/last")) && linesOf("killed") >= 17);
    run.process.kill("SIGKILL");
    expect((await run.ended).code).toBe("SIGKILL");
    await place.json(["train", "--resume", "--out", "killed"]);
    expect(weights("killed").equals(whole)).toBe(true);
  });
});
