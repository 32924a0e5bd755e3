// Layer: apps/playground, for tests. A real browser with the built page in it, what a visitor does there, and all that it complains of.
// Knows Chromium and the page's elements. Knows no test.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { type Browser, chromium, type Page } from "playwright-core";
import { servePage } from "../serve.mjs";

/** Where Chromium is, or undefined; `CHROMIUM` names another place. */
export function findChromium(): string | undefined {
  const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  return [process.env.CHROMIUM ?? "", ...places].find((place) => place !== "" && existsSync(place));
}

export interface Stage {
  readonly browser: Browser;
  readonly url: string;
  /** A folder of its own, which `close` takes away. */
  readonly folder: string;
  close(): Promise<void>;
}

/** Builds the page, serves it, and starts a browser that computes WebGPU in software where there is no GPU. */
export async function openStage(executablePath: string): Promise<Stage> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-playground-"));
  const server = await servePage({ port: 0, outDir: path.join(folder, "page") });
  const args = [
    ...["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
    // Shaders clear their own workgroup memory, which that adapter compiles in a third of the time.
    "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
  ];
  const browser = await chromium.launch({ executablePath, args });
  return {
    browser,
    url: server.url,
    folder,
    close: async () => {
      await browser.close();
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** One visit of the page. */
export class Visit {
  /** Errors and warnings of the console, and whatever was thrown and not caught. */
  readonly complaints: string[] = [];

  private constructor(readonly page: Page) {
    page.setDefaultTimeout(120_000);
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("requestfailed", (request) => this.complaints.push(`${request.url()} could not be loaded`));
  }

  static async begin({ browser, url }: Stage, settings: Readonly<Record<string, string | number>>): Promise<Visit> {
    const visit = new Visit(await browser.newPage());
    const query = new URLSearchParams(Object.entries(settings).map(([name, value]) => [name, String(value)]));
    await visit.page.goto(`${url}?${query}`);
    await visit.page.locator("#train:enabled").waitFor();
    return visit;
  }

  async text(selector: string): Promise<string> {
    return (await this.page.locator(selector).textContent()) ?? "";
  }

  /** Chooses a text of the visitor's own. */
  async paste(text: string): Promise<void> {
    await this.page.locator('.segments label:has([value="paste"])').click();
    await this.page.fill("#paste", text);
  }

  /** Trains until both models score below so many bits on the held-out text. @returns both scores */
  async trainBelow(bits: number, timeout: number): Promise<readonly number[]> {
    await this.page.click("#train");
    const scores = this.page.locator('[data-figure="heldOut"]');
    const deadline = performance.now() + timeout;
    for (;;) {
      const found = (await scores.allInnerTexts()).map(Number);
      if (found.length === 2 && found.every((score) => score < bits)) return found;
      const problems = await this.page.locator(".notice").allInnerTexts();
      if (problems.length > 0) throw new Error(`the page says: ${problems.join(" ")}`);
      if (performance.now() > deadline) {
        throw new Error(`after ${timeout / 1000} s: ${await this.text("#phase")}, scores ${found.join(" and ")}`);
      }
      await this.page.waitForTimeout(100);
    }
  }

  /** Writes without chance. @returns what came after the prompt, from each model that was asked, in order */
  async write(writer: string, prompt: string, characters: number): Promise<readonly string[]> {
    const { page } = this;
    await page.locator(`#writers label:has([value="${writer}"])`).click();
    await page.fill("#prompt", prompt);
    await page.fill("#tokens", String(characters));
    await page.fill("#temperature", "0");
    await page.click("#write");
    await page.locator("#write", { hasText: "Write" }).waitFor();
    const whole = await page
      .locator(".output-text")
      .evaluateAll((all) => all.map(({ textContent }) => textContent ?? ""));
    return whole.map((text) => text.slice(prompt.length));
  }

  /** Saves a model as a zip. @returns the file */
  async save(slot: string, folder: string): Promise<string> {
    const saved = this.page.waitForEvent("download");
    await this.page.click(`[data-export="${slot}"]`);
    const download = await saved;
    const file = path.join(folder, download.suggestedFilename());
    await download.saveAs(file);
    return file;
  }

  /** Loads a checkpoint from a zip. @returns the name that the page gives it */
  async load(file: string): Promise<string> {
    await this.page.setInputFiles("#zip-input", file);
    await this.page.locator("#loaded:visible").waitFor();
    return this.text(".loaded-name");
  }
}
