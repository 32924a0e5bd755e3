// Layer: apps/playground, page. Which text is trained on: the sample, what is pasted, or a file that is chosen or dropped anywhere.
// Knows the DOM and files. Knows no model.

import { sampleText } from "../text/sample.js";
import { byId, bytes, count, find } from "./elements.js";

export interface ChosenText {
  readonly name: string;
  readonly text: string;
}

type Source = "sample" | "paste" | "file";

/** Larger files would fill the tab's memory before they were learnt from. */
const mostBytes = 64e6;
/** A shorter text is told to be short before anything is tried. */
const leastCharacters = 2000;

export class TextPanel {
  readonly #sample = sampleText();
  #file: ChosenText | undefined;
  #source: Source = "sample";
  readonly #facts = byId("text-facts", HTMLParagraphElement);
  readonly #paste = byId("paste", HTMLTextAreaElement);

  constructor(readonly onChange: () => void) {
    byId("sample-preview", HTMLQuoteElement).textContent = this.#sample.slice(0, 2400);
    for (const radio of document.querySelectorAll<HTMLInputElement>('input[name="source"]')) {
      radio.addEventListener("change", () => this.#choose(radio.value as Source));
    }
    this.#paste.addEventListener("input", () => this.#update());
    const input = byId("file", HTMLInputElement);
    input.addEventListener("change", () => {
      const [file] = input.files ?? [];
      input.value = "";
      if (file !== undefined) void this.#read(file);
    });
    this.#listenForDrops();
    this.#update();
  }

  /** What was chosen, or undefined where it cannot be trained on. */
  get chosen(): ChosenText | undefined {
    const text = this.#current();
    return text === undefined || text.text.length < leastCharacters ? undefined : text;
  }

  #current(): ChosenText | undefined {
    if (this.#source === "sample") return { name: "Tales of a harbour", text: this.#sample };
    if (this.#source === "paste") return { name: "Your text", text: this.#paste.value };
    return this.#file;
  }

  #choose(source: Source): void {
    this.#source = source;
    find<HTMLInputElement>(document, `input[name="source"][value="${source}"]`).checked = true;
    for (const part of document.querySelectorAll<HTMLElement>("[data-source]")) {
      part.hidden = part.dataset.source !== source;
    }
    this.#update();
  }

  #update(problem?: string): void {
    const current = this.#current();
    this.#facts.classList.toggle("bad", problem !== undefined);
    this.#facts.textContent = problem ?? (current === undefined ? "No file yet." : describe(current));
    this.onChange();
  }

  /** Takes a file as the text. */
  async #read(file: File): Promise<void> {
    this.#choose("file");
    try {
      if (file.size > mostBytes)
        throw new Error(`it has ${bytes(file.size)}; at most ${bytes(mostBytes)} can be read here`);
      const text = decode(await file.arrayBuffer());
      this.#file = { name: file.name, text };
      byId("file-name", HTMLElement).textContent = file.name;
      byId("file-hint", HTMLParagraphElement).textContent = `${text.slice(0, 120).replace(/\s+/g, " ")}…`;
      this.#update();
    } catch (error) {
      this.#update(`${file.name} was not taken: ${(error as Error).message}.`);
    }
  }

  #listenForDrops(): void {
    const veil = byId("drop-veil", HTMLDivElement);
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    let depth = 0;
    const show = (change: number) => {
      depth = Math.max(0, depth + change);
      veil.hidden = depth === 0;
    };
    addEventListener("dragenter", (event) => hasFiles(event) && show(1));
    addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
    addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      const file = event.dataTransfer?.files[0];
      if (file === undefined) return;
      event.preventDefault();
      show(-depth);
      void this.#read(file);
    });
  }
}

function decode(content: ArrayBuffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(content);
  } catch {
    throw new Error("it is not text in UTF-8");
  }
}

function describe({ name, text }: ChosenText): string {
  const { length } = text;
  if (length === 0) return "Nothing here yet.";
  if (length < leastCharacters)
    return `${count(length)} characters: too few to learn from. ${count(leastCharacters)} or more are needed.`;
  const facts = `${name}, ${count(length)} characters. The last tenth is held out.`;
  return length < 10 * leastCharacters ? `${facts} A longer text makes better models.` : facts;
}
