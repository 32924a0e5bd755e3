// Layer: apps/playground, page. Checkpoints to and from the visitor's disk. Knows the DOM, file pickers and the worker's client.
// Knows no format.

import type { CheckpointSource, ModelSummary, Slot } from "../protocol.js";
import type { WorkerClient } from "./client.js";
import { byId, bytes, count, find, make } from "./elements.js";

type Picker = (options: { readonly mode: "read" | "readwrite" }) => Promise<FileSystemDirectoryHandle>;

/** The browser's picker of folders, where it has one. */
const picker = (globalThis as { showDirectoryPicker?: Picker }).showDirectoryPicker;

/** Whether the visitor closed a picker without choosing. */
const isCancelled = (error: unknown): boolean => (error as Error | undefined)?.name === "AbortError";

export class KeepingPanel {
  readonly #exportStatus = byId("export-status", HTMLParagraphElement);
  readonly #loadStatus = byId("load-status", HTMLParagraphElement);
  readonly #buttons = [...document.querySelectorAll<HTMLButtonElement>("[data-export]")];

  constructor(
    readonly client: WorkerClient,
    readonly onLoaded: (summary: ModelSummary) => void,
    readonly onSaved: () => void,
  ) {
    byId("export-as", HTMLFieldSetElement).hidden = picker === undefined;
    for (const button of this.#buttons) {
      button.addEventListener("click", () => void this.#export(button.dataset.export as Slot));
    }
    const [folder, zip] = [byId("folder-input", HTMLInputElement), byId("zip-input", HTMLInputElement)];
    byId("load-folder", HTMLButtonElement).addEventListener("click", () => void this.#pickFolder(folder));
    byId("load-zip", HTMLButtonElement).addEventListener("click", () => zip.click());
    folder.addEventListener("change", () => {
      const files = [...(folder.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
      folder.value = "";
      const [first] = files;
      if (first !== undefined) void this.#load({ kind: "files", name: first.path.split("/")[0] ?? "folder", files });
    });
    zip.addEventListener("change", () => {
      const [file] = zip.files ?? [];
      zip.value = "";
      if (file !== undefined) void this.#load({ kind: "zip", name: file.name.replace(/\.zip$/i, ""), file });
    });
  }

  /** Whether there is something to save. */
  enable(ready: boolean): void {
    for (const button of this.#buttons) button.disabled = !ready;
  }

  #say(status: HTMLElement, text: string, bad = false): void {
    status.textContent = text;
    status.classList.toggle("bad", bad);
  }

  async #export(slot: Slot): Promise<void> {
    const intoFolder = find<HTMLInputElement>(document, 'input[name="export-as"]:checked').value === "folder";
    try {
      const to = intoFolder && picker !== undefined ? await picker({ mode: "readwrite" }) : undefined;
      this.#say(this.#exportStatus, "Saving…");
      const { name, zip } = await this.client.ask("export", { slot, ...(to && { to }) });
      if (zip !== undefined) download(`${name}.zip`, zip);
      const where = zip === undefined ? `${to?.name}/${name}` : `${name}.zip, ${bytes(zip.length)}`;
      this.#say(this.#exportStatus, `Saved ${where}.${zip === undefined ? "" : " Unpacked, it goes on in a shell:"}`);
      const command = byId("command", HTMLPreElement);
      command.hidden = false;
      find(command, "code").textContent = `npx diffmamba generate --checkpoint ${name} --prompt "The "`;
      this.onSaved();
    } catch (error) {
      if (isCancelled(error)) this.#say(this.#exportStatus, "");
      else this.#say(this.#exportStatus, `Nothing was saved: ${(error as Error).message}`, true);
    }
  }

  async #pickFolder(input: HTMLInputElement): Promise<void> {
    if (picker === undefined) {
      input.click();
      return;
    }
    try {
      const handle = await picker({ mode: "read" });
      await this.#load({ kind: "folder", name: handle.name, handle });
    } catch (error) {
      if (!isCancelled(error)) this.#say(this.#loadStatus, (error as Error).message, true);
    }
  }

  async #load(source: CheckpointSource): Promise<void> {
    this.#say(this.#loadStatus, `Reading ${source.name}…`);
    try {
      const summary = await this.client.ask("load", source);
      this.#say(this.#loadStatus, "");
      this.#show(summary);
      this.onLoaded(summary);
    } catch (error) {
      this.#say(this.#loadStatus, (error as Error).message, true);
    }
  }

  #show({ title, layers, width, parameters, symbols, differential, lambda }: ModelSummary): void {
    const loaded = byId("loaded", HTMLDivElement);
    const mean = lambda.reduce((sum, { value }) => sum + value, 0) / Math.max(1, lambda.length);
    const kind =
      differential.length === 0
        ? "no differential layer"
        : `${differential.length} of ${layers} layers differential, λ ${mean.toFixed(2)} on average`;
    loaded.hidden = false;
    loaded.replaceChildren(
      make("b", { className: "loaded-name" }, title),
      `${count(parameters)} parameters: ${layers} ${layers === 1 ? "layer" : "layers"} of ${width}, ${kind}; ${count(symbols)} symbols.`,
    );
  }
}

/** Hands a file to the browser's downloads. */
function download(name: string, content: Uint8Array<ArrayBuffer>): void {
  const url = URL.createObjectURL(new Blob([content], { type: "application/zip" }));
  const link = make("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
