// Layer: apps/playground, page. What one model is and does: size, score, speed, the lambda of each layer, and what it writes.
// Knows the DOM. Knows no worker.

import type { Contender, LambdaValue, ModelSummary } from "../protocol.js";
import { byId, count, draw, find, make, oncePerFrame, short } from "./elements.js";

/** Points of a small curve at most. */
const mostPoints = 240;

/** The lambda of one layer over time, as a small curve. */
class LambdaCurve {
  readonly element = make("li");
  readonly #value = make("b");
  readonly #line = draw("polyline", {});
  readonly #start = draw("line", { x1: 0, x2: 100, y1: 0, y2: 0, "stroke-dasharray": "2 3" });
  #points: { readonly step: number; readonly value: number }[] = [];

  constructor(layer: number) {
    const picture = draw("svg", { viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true" });
    picture.append(this.#start, this.#line);
    this.element.append(make("span", { className: "quiet" }, `Layer ${layer + 1}`), this.#value, picture);
  }

  add(step: number, value: number): void {
    this.#points = this.#points.filter((point) => point.step < step);
    this.#points.push({ step, value });
    // Every other point goes, so that the curve keeps its shape.
    if (this.#points.length > mostPoints)
      this.#points = this.#points.filter((_, i, all) => i % 2 === 0 || i === all.length - 1);
  }

  paint(): void {
    const values = this.#points.map(({ value }) => value);
    const [first, last] = [values[0], values.at(-1)];
    if (first === undefined || last === undefined) return;
    this.#value.textContent = last.toFixed(3);
    const middle = (Math.min(...values) + Math.max(...values)) / 2;
    const reach = Math.max(0.04, Math.max(...values) - Math.min(...values));
    const y = (value: number) => (13 - (22 * (value - middle)) / reach).toFixed(2);
    const [from, to] = [this.#points[0]?.step ?? 0, this.#points.at(-1)?.step ?? 1];
    const x = (step: number) => ((100 * (step - from)) / Math.max(1, to - from)).toFixed(2);
    this.#line.setAttribute("points", this.#points.map(({ step, value }) => `${x(step)},${y(value)}`).join(" "));
    for (const end of ["y1", "y2"]) this.#start.setAttribute(end, y(first));
  }
}

export class ModelCard {
  readonly #root: HTMLElement;
  readonly #sample: HTMLElement;
  readonly #lambdas = new Map<number, LambdaCurve>();
  readonly #pending = new Map<string, string>();
  #sampleStep: number | undefined;
  readonly #paint = oncePerFrame(() => {
    for (const [name, text] of this.#pending) find(this.#root, `[data-figure="${name}"]`).textContent = text;
    this.#pending.clear();
    for (const curve of this.#lambdas.values()) curve.paint();
  });

  constructor(
    readonly slot: Contender,
    title: string,
  ) {
    const template = byId("model-card", HTMLTemplateElement).content.cloneNode(true) as DocumentFragment;
    this.#root = find(template, "article");
    this.#root.classList.add(slot);
    this.#root.setAttribute("aria-label", title);
    find(this.#root, "h3").textContent = title;
    this.#sample = find(this.#root, ".sample-text");
    byId("cards", HTMLDivElement).append(template);
  }

  /** A new run. @param symbol what the unit of text is */
  reset({ parameters, lambda }: ModelSummary, symbol: string): void {
    find(this.#root, ".size").textContent = `${count(parameters)} parameters`;
    find(this.#root, ".size").title = short(parameters);
    this.#set("heldOut", "–");
    this.#set("unit", symbol === "byte" ? "bits/byte" : "bits/char");
    this.#set("training", "–");
    this.#set("speedName", `${symbol}s/s`);
    this.#set("speed", "–");
    this.#lambdas.clear();
    const list = make("ul");
    for (const { layer, value } of lambda) {
      const curve = new LambdaCurve(layer);
      curve.add(0, value);
      this.#lambdas.set(layer, curve);
      list.append(curve.element);
    }
    const section = find(this.#root, ".lambdas");
    section.hidden = lambda.length === 0;
    section.replaceChildren(
      make("p", {}, make("i", {}, "λ"), " by layer: how much of the second branch is taken away"),
      list,
    );
    this.#sample.replaceChildren();
    this.#sampleStep = undefined;
    find(this.#root, ".sample-step").textContent = "";
    find(this.#root, ".earlier").hidden = true;
    find(this.#root, ".earlier ol").replaceChildren();
    this.endSample();
  }

  step(step: number, bits: number, tokensPerSecond: number, lambda: readonly LambdaValue[] = []): void {
    this.#set("training", bits.toFixed(2));
    if (tokensPerSecond > 0) this.#set("speed", count(Number(tokensPerSecond.toPrecision(3))));
    for (const { layer, value } of lambda) this.#lambdas.get(layer)?.add(step, value);
  }

  heldOut(bits: number): void {
    this.#set("heldOut", bits.toFixed(3));
  }

  /** A text begins; the one before it is kept. */
  beginSample(step: number, prompt: string): void {
    const list = find(this.#root, ".earlier ol");
    if (this.#sampleStep !== undefined) {
      const text = make("p", {}, ...Array.from(this.#sample.childNodes, (node) => node.cloneNode(true)));
      list.prepend(make("li", {}, make("span", {}, `after ${count(this.#sampleStep)} steps`), text));
      find(this.#root, ".earlier").hidden = false;
    }
    this.#sampleStep = step;
    find(this.#root, ".sample-step").textContent = `after ${count(step)} steps`;
    this.#sample.replaceChildren(make("span", { className: "prompted" }, prompt));
    this.#sample.classList.add("writing-now");
  }

  sampleText(text: string): void {
    this.#sample.append(text);
  }

  /** Nothing is being written any more. */
  endSample(): void {
    this.#sample.classList.remove("writing-now");
  }

  #set(figure: string, text: string): void {
    this.#pending.set(figure, text);
    this.#paint();
  }
}
