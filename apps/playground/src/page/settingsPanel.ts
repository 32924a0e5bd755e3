// Layer: apps/playground, page. How large the models are and how they are trained: a size, and every number behind it.
// Knows the DOM and the settings. Knows no model.

import { faultOf, faultOfSettings, limits, type RunSettings, type Size, sizeNames, sizes } from "../settings.js";
import { byId, find, make } from "./elements.js";

const titles: Readonly<Record<Size, readonly [title: string, about: string]>> = {
  tiny: ["Tiny", "1 layer of 32"],
  small: ["Small", "2 layers of 64"],
  medium: ["Medium", "4 layers of 128"],
  large: ["Large", "6 layers of 256"],
};

const fields: readonly (readonly [name: keyof RunSettings, title: string])[] = [
  ["layers", "Layers"],
  ["width", "Width"],
  ["state", "State"],
  ["headDim", "Head width"],
  ["length", "Context"],
  ["batch", "Batch"],
  ["steps", "Steps"],
  ["rate", "Learning rate"],
  ["evaluateEvery", "Score every"],
  ["sampleEvery", "Sample every"],
  ["seed", "Seed"],
];

const names = Object.fromEntries(fields) as Readonly<Partial<Record<keyof RunSettings, string>>>;

export class SettingsPanel {
  #size: Size | undefined;
  readonly #inputs = new Map<keyof RunSettings, HTMLInputElement>();
  readonly #hint = byId("setup-hint", HTMLParagraphElement);

  /** @param given settings of the page's address, which every size is overruled by */
  constructor(
    readonly given: Partial<RunSettings>,
    readonly onChange: () => void,
  ) {
    const choices = byId("sizes", HTMLDivElement);
    for (const size of sizeNames) {
      const [title, about] = titles[size];
      const input = make("input");
      Object.assign(input, { type: "radio", name: "size", value: size });
      input.addEventListener("change", () => this.choose(size));
      choices.append(make("label", {}, input, make("b", {}, title), make("span", {}, about)));
    }
    const numbers = byId("numbers", HTMLDivElement);
    for (const [name, title] of fields) {
      const [least, most, whole] = limits[name];
      const input = make("input");
      Object.assign(input, {
        type: "number",
        name,
        min: least,
        max: most,
        step: whole ? 1 : "any",
        inputMode: "decimal",
      });
      input.addEventListener("input", () => this.#check());
      this.#inputs.set(name, input);
      numbers.append(make("label", {}, title, input));
    }
    this.choose("small");
    this.#size = undefined;
  }

  /** The size that fits the machine, unless the visitor has chosen one. */
  suggest(size: Size): void {
    if (this.#size !== undefined) return;
    this.choose(size);
    this.#size = undefined;
  }

  choose(size: Size): void {
    this.#size = size;
    find<HTMLInputElement>(document, `input[name="size"][value="${size}"]`).checked = true;
    const settings: RunSettings = { ...sizes[size], ...this.given };
    for (const [name, input] of this.#inputs) input.value = String(settings[name]);
    this.#check();
  }

  /** The settings as they stand, or undefined where one of them cannot be. */
  get settings(): RunSettings | undefined {
    return this.#fault() === undefined ? this.#read() : undefined;
  }

  #read(): RunSettings {
    const chosen = find<HTMLInputElement>(document, 'input[name="size"]:checked').value as Size;
    const own = [...this.#inputs].map(([name, input]) => [name, input.valueAsNumber] as const);
    return { ...sizes[chosen], ...this.given, ...Object.fromEntries(own) };
  }

  #fault(): string | undefined {
    return faultOfSettings(this.#read(), names);
  }

  #check(): void {
    const fault = this.#fault();
    const wrong = [...this.#inputs].filter(([name, input]) => faultOf(name, input.valueAsNumber) !== undefined);
    for (const [name, input] of this.#inputs) {
      // Numbers that are possible one by one may not go together: then it is the width of a head.
      const isWrong =
        wrong.length > 0 ? wrong.some(([one]) => one === name) : fault !== undefined && name === "headDim";
      input.setAttribute("aria-invalid", String(isWrong));
    }
    this.#hint.classList.toggle("problem", fault !== undefined);
    const { steps = 0 } = fault === undefined ? this.#read() : {};
    this.#hint.textContent = fault ?? `${steps.toLocaleString("en")} steps each, in turns, on the same passages.`;
    this.onChange();
  }
}
