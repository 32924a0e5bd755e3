// Layer: apps/playground, page. Text from a model, as it comes: a prompt, a temperature, and one model, both, or one that was loaded.
// Knows the DOM and the worker's client. Knows no device.

import type { Slot } from "../protocol.js";
import type { WorkerClient } from "./client.js";
import { byId, count, find, make } from "./elements.js";

const titles: Readonly<Record<Slot, string>> = {
  vanilla: "Mamba-2",
  differential: "Diff-Mamba-2",
  loaded: "Loaded checkpoint",
};

export class WritingPanel {
  readonly #form = byId("generate-form", HTMLFormElement);
  readonly #prompt = byId("prompt", HTMLInputElement);
  readonly #temperature = byId("temperature", HTMLInputElement);
  readonly #tokens = byId("tokens", HTMLInputElement);
  readonly #button = byId("write", HTMLButtonElement);
  readonly #problem = byId("generate-problem", HTMLParagraphElement);
  readonly #outputs = byId("outputs", HTMLDivElement);
  #trained = false;
  #loaded = false;
  #busy = false;
  /** The prompt that was put there, which another may replace. */
  #suggested = "";
  #seed = 0;

  constructor(readonly client: WorkerClient) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#busy) void client.ask("cancel", {}).catch(() => undefined);
      else void this.#write();
    });
    const show = () => {
      byId("temperature-value", HTMLOutputElement).textContent = this.#temperature.valueAsNumber.toFixed(2);
    };
    this.#temperature.addEventListener("input", show);
    show();
    this.#update();
  }

  /** Both models are there to be asked. */
  trained(prompt: string): void {
    this.#trained = true;
    this.#suggest(prompt);
    if (this.#writer() === "loaded") this.#choose("both");
    this.#update();
  }

  /** A checkpoint has been loaded. */
  loaded(): void {
    this.#loaded = true;
    this.#choose("loaded");
    this.#suggest("The ");
    this.#update();
  }

  #suggest(prompt: string): void {
    if (this.#prompt.value !== this.#suggested && this.#prompt.value !== "") return;
    this.#prompt.value = this.#suggested = prompt;
  }

  #choose(writer: string): void {
    find<HTMLInputElement>(document, `input[name="writer"][value="${writer}"]`).checked = true;
  }

  #writer(): string {
    return find<HTMLInputElement>(document, 'input[name="writer"]:checked').value;
  }

  #update(): void {
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name="writer"]')) {
      const isLoaded = input.value === "loaded";
      input.disabled = isLoaded ? !this.#loaded : !this.#trained && this.#loaded;
      if (isLoaded && input.parentElement !== null) input.parentElement.hidden = !this.#loaded;
    }
    const ready = this.#trained || this.#loaded;
    this.#button.disabled = !ready;
    this.#button.textContent = this.#busy ? "Stop" : "Write";
    byId("outputs-empty", HTMLParagraphElement).hidden = ready || this.#outputs.childElementCount > 0;
  }

  #complain(message: string | undefined): void {
    this.#problem.hidden = message === undefined;
    this.#problem.textContent = message ?? "";
  }

  async #write(): Promise<void> {
    this.#complain(undefined);
    const maxTokens = this.#tokens.valueAsNumber;
    if (!Number.isInteger(maxTokens) || maxTokens < 1 || maxTokens > 5000) {
      this.#complain("Ask for 1 to 5,000 characters.");
      return;
    }
    const writer = this.#writer();
    const slots = writer === "both" ? (["vanilla", "differential"] as const) : [writer as Slot];
    this.#busy = true;
    this.#outputs.replaceChildren();
    this.#update();
    const seed = ++this.#seed;
    try {
      for (const slot of slots) {
        const stopped = await this.#writeFrom(slot, { maxTokens, seed });
        if (stopped) break;
      }
    } catch (error) {
      this.#complain((error as Error).message);
    } finally {
      this.#busy = false;
      this.#update();
    }
  }

  /** @returns whether it was stopped */
  async #writeFrom(slot: Slot, options: { readonly maxTokens: number; readonly seed: number }): Promise<boolean> {
    const prompt = this.#prompt.value;
    const speed = make("span");
    const text = make("p", { className: "output-text writing-now" }, make("span", { className: "prompted" }, prompt));
    const head = make(
      "p",
      { className: "output-head" },
      make("span", { className: "output-name" }, titles[slot]),
      speed,
    );
    const output = make("div", { className: `output ${slot}` }, head, text);
    this.#outputs.append(output);
    try {
      const ask = { slot, prompt, temperature: this.#temperature.valueAsNumber, ...options };
      const { tokens, seconds, stopped } = await this.client.ask("generate", ask, (piece) => text.append(piece));
      const perSecond = count(Number((tokens / Math.max(seconds, 1e-3)).toPrecision(2)));
      speed.textContent = `${count(tokens)} in ${seconds.toFixed(1)} s, ${perSecond}/s`;
      return stopped;
    } catch (error) {
      output.remove();
      throw error;
    } finally {
      text.classList.remove("writing-now");
    }
  }
}
