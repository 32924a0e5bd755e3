// Layer: apps/playground, page. Puts the panels and the worker together: what is pressed becomes a request, what is told becomes a picture.
// Knows every panel. Knows no device and no model.

import { type BackendName, type Contender, contenders, type Event, type Phase, type RunSummary } from "../protocol.js";
import { type Size, settingsOf, sizeNames } from "../settings.js";
import { BackendMenu } from "./backendMenu.js";
import { WorkerClient } from "./client.js";
import { Curves } from "./curves.js";
import { byId, count, duration } from "./elements.js";
import { KeepingPanel } from "./keepingPanel.js";
import { ModelCard } from "./modelCard.js";
import { clearNotices, showNotice } from "./notices.js";
import { SettingsPanel } from "./settingsPanel.js";
import { TextPanel } from "./textPanel.js";
import { WritingPanel } from "./writingPanel.js";

const titles: Readonly<Record<Contender, string>> = { vanilla: "Mamba-2", differential: "Diff-Mamba-2" };
const backendNames: readonly string[] = ["webgpu", "wasm", "reference"];

export class App {
  readonly #query = new URLSearchParams(location.search);
  readonly #client = new WorkerClient(
    (event) => this.#receive(event),
    (message) => this.#crashed(message),
  );
  readonly #backend = new BackendMenu((name) => void this.#open(name));
  readonly #curves = new Curves();
  readonly #cards: Readonly<Record<Contender, ModelCard>> = {
    vanilla: new ModelCard("vanilla", titles.vanilla),
    differential: new ModelCard("differential", titles.differential),
  };
  readonly #writing = new WritingPanel(this.#client);
  readonly #keeping = new KeepingPanel(
    this.#client,
    () => this.#writing.loaded(),
    () => {
      this.#unsaved = false;
    },
  );
  readonly #settings: SettingsPanel;
  readonly #text: TextPanel;
  readonly #train = byId("train", HTMLButtonElement);
  readonly #pause = byId("pause", HTMLButtonElement);
  readonly #extend = byId("extend", HTMLButtonElement);
  readonly #progress = byId("progress", HTMLProgressElement);
  #ready = false;
  #starting = false;
  #run: RunSummary | undefined;
  #phase: Phase | undefined;
  #step = 0;
  #steps = 0;
  #unsaved = false;
  /** When which step was reached, to tell how long the rest will take. */
  #pace: { readonly step: number; readonly time: number } | undefined;

  constructor() {
    this.#settings = new SettingsPanel(
      settingsOf(this.#query, (title) => showNotice({ kind: "note", title })),
      () => this.#update(),
    );
    this.#text = new TextPanel(() => this.#update());
    const size = this.#query.get("size");
    if (size !== null && (sizeNames as readonly string[]).includes(size)) this.#settings.choose(size as Size);
    byId("setup-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    this.#pause.addEventListener("click", () => void this.#toggle());
    this.#extend.addEventListener("click", () => void this.#goOn());
    addEventListener("beforeunload", (event) => this.#unsaved && event.preventDefault());
    const asked = this.#query.get("backend");
    void this.#open(asked !== null && backendNames.includes(asked) ? (asked as BackendName) : undefined);
    this.#update();
  }

  async #open(backend: BackendName | undefined): Promise<void> {
    this.#ready = false;
    this.#backend.wait();
    this.#update();
    const threads = Number(this.#query.get("threads"));
    try {
      const state = await this.#client.ask("open", {
        ...(backend && { backend }),
        ...(Number.isInteger(threads) && threads > 0 && { threads }),
      });
      this.#backend.show(state);
      this.#ready = true;
      const isSoftware = state.reports.some(({ name, software }) => name === state.name && software);
      this.#settings.suggest(
        state.name === "reference" || isSoftware ? "tiny" : state.name === "webgpu" ? "medium" : "small",
      );
      if (state.note !== undefined)
        showNotice({ kind: "note", title: state.note, detail: `${state.title} is used instead.` });
    } catch (error) {
      this.#backend.fail();
      showNotice({ kind: "error", title: "Nothing can compute here.", detail: (error as Error).message });
    }
    this.#update();
  }

  async #start(): Promise<void> {
    const [text, settings] = [this.#text.chosen, this.#settings.settings];
    if (text === undefined || settings === undefined || !this.#ready || this.#starting) return;
    this.#starting = true;
    clearNotices();
    this.#update();
    byId("phase", HTMLSpanElement).textContent = "Getting ready…";
    this.#progress.hidden = false;
    this.#progress.removeAttribute("value");
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("learning-title", HTMLHeadingElement).scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
    try {
      await this.#client.ask("train", { ...text, settings });
    } catch (error) {
      showNotice({ kind: "error", title: "Training did not begin.", detail: (error as Error).message });
      byId("phase", HTMLSpanElement).textContent = "";
      this.#progress.hidden = this.#run === undefined;
    } finally {
      this.#starting = false;
      this.#update();
    }
  }

  #begin(run: RunSummary): void {
    this.#run = run;
    this.#pace = undefined;
    byId("unit", HTMLSpanElement).textContent = run.symbol === "byte" ? "Bits per byte" : "Bits per character";
    this.#curves.reset(run.settings.steps, `bits per ${run.symbol}`);
    for (const model of run.models) {
      if (model.slot !== "loaded") this.#cards[model.slot].reset(model, run.symbol);
    }
    for (const name of contenders) byId(`legend-${name}`, HTMLElement).textContent = "";
    this.#writing.trained(run.prompt);
    this.#keeping.enable(true);
    this.#unsaved = true;
  }

  async #toggle(): Promise<void> {
    this.#pause.disabled = true;
    try {
      await this.#client.ask(this.#phase === "paused" ? "resume" : "pause", {});
    } catch (error) {
      showNotice({ kind: "error", title: "That did not work.", detail: (error as Error).message });
    } finally {
      this.#pause.disabled = false;
    }
  }

  async #goOn(): Promise<void> {
    const steps = this.#run?.settings.steps ?? 0;
    this.#pace = undefined;
    try {
      await this.#client.ask("extend", { steps });
    } catch (error) {
      showNotice({ kind: "error", title: "The run could not be made longer.", detail: (error as Error).message });
    }
  }

  #receive(event: Event): void {
    switch (event.type) {
      case "run":
        this.#begin(event.run);
        break;
      case "phase":
        this.#phase = event.phase;
        [this.#step, this.#steps] = [event.step, event.steps];
        this.#curves.reach(event.steps);
        this.#pace = undefined;
        if (event.phase !== "training") for (const name of contenders) this.#cards[name].endSample();
        if (event.phase === "finished") this.#announce("Training has finished.");
        break;
      case "step":
        this.#cards[event.slot].endSample();
        this.#cards[event.slot].step(event.step, event.bits, event.tokensPerSecond, event.lambda);
        this.#curves.step(event.slot, event.step, event.bits);
        this.#step = event.step;
        break;
      case "heldOut":
        this.#cards[event.slot].heldOut(event.bits);
        this.#curves.heldOut(event.slot, event.step, event.bits);
        byId(`legend-${event.slot}`, HTMLElement).textContent = event.bits.toFixed(3);
        if (event.slot === "differential") this.#score(event.step);
        break;
      case "sample":
        this.#cards[event.slot].beginSample(event.step, event.prompt);
        break;
      case "sampleText":
        this.#cards[event.slot].sampleText(event.text);
        break;
      case "interrupted":
        this.#interrupted(event.message, event.savedStep);
        break;
      case "warning":
        showNotice({ kind: "note", title: event.message });
        break;
      case "text":
        break;
    }
    this.#update();
  }

  #score(step: number): void {
    const scores = contenders.map((name) => `${titles[name]} ${this.#curves.latest(name)?.toFixed(2)}`);
    this.#announce(`Step ${step}: ${scores.join(", ")} ${byId("unit", HTMLSpanElement).textContent?.toLowerCase()}.`);
  }

  #announce(text: string): void {
    byId("announcer", HTMLParagraphElement).textContent = text;
  }

  #interrupted(message: string, savedStep: number): void {
    const kept =
      savedStep > 0 ? `All that was learnt up to step ${count(savedStep)} is kept.` : "Nothing had been saved yet.";
    const label = savedStep > 0 ? `Go on from step ${count(savedStep)}` : "Try again";
    showNotice({
      kind: "error",
      title: `Training was interrupted. ${kept}`,
      detail: message,
      actions: [{ label, run: () => void this.#recover() }],
    });
  }

  async #recover(): Promise<void> {
    try {
      await this.#client.ask("resume", {});
    } catch (error) {
      const detail = `${(error as Error).message} Choose another backend at the top of the page, then try again.`;
      const actions = [{ label: "Try again", run: () => void this.#recover() }];
      showNotice({ kind: "error", title: "The run could not go on.", detail, actions });
    }
  }

  #crashed(message: string): void {
    this.#ready = false;
    this.#unsaved = false;
    showNotice({
      kind: "error",
      title: "The part of the page that trains has failed.",
      detail: `${message}. What it held is lost; reload the page to begin again.`,
      actions: [{ label: "Reload", run: () => location.reload() }],
    });
    this.#update();
  }

  #update(): void {
    const phase = this.#phase;
    const runs = phase === "training" || phase === "paused";
    this.#train.disabled =
      !this.#ready || this.#starting || this.#text?.chosen === undefined || this.#settings?.settings === undefined;
    this.#train.textContent = this.#run === undefined ? "Train both" : "Start over";
    this.#pause.hidden = !runs || this.#starting;
    this.#pause.textContent = phase === "paused" ? "Resume" : "Pause";
    this.#extend.hidden = phase !== "finished" || this.#starting;
    this.#extend.textContent = `Go on for ${count(this.#run?.settings.steps ?? 0)} more`;
    if (this.#starting || this.#run === undefined) return;
    this.#progress.hidden = false;
    this.#progress.max = this.#steps;
    this.#progress.value = this.#step;
    byId("phase", HTMLSpanElement).textContent = this.#describe();
  }

  #describe(): string {
    const steps = `step ${count(this.#step)} of ${count(this.#steps)}`;
    if (this.#phase === "paused") return `Paused at ${steps}`;
    if (this.#phase === "interrupted") return `Interrupted at ${steps}`;
    if (this.#phase === "finished") return `${count(this.#step)} steps, finished`;
    if (this.#step >= this.#steps) return `${count(this.#step)} steps, last scores`;
    const now = performance.now();
    this.#pace ??= { step: this.#step, time: now };
    const done = this.#step - this.#pace.step;
    if (done < 5 || now - this.#pace.time < 2000) return steps;
    const left = ((this.#steps - this.#step) * (now - this.#pace.time)) / done / 1000;
    return `${steps}, about ${duration(left)} left`;
  }
}
