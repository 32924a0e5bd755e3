// Layer: apps/playground, page. Small helpers over the document: elements by id with their type, elements made, one drawing a frame.
// Knows the DOM. Knows nothing of models.

/** The element of that id. @throws Error where the page has none of that kind */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`The page has no ${kind.name} with the id "${id}".`);
  return element;
}

/** The first element inside `root` that fits. @throws Error where there is none */
export function find<T extends Element = HTMLElement>(root: ParentNode, selector: string): T {
  const element = root.querySelector<T>(selector);
  if (element === null) throw new Error(`There is no ${selector} here.`);
  return element;
}

/** A new element with text or elements in it. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: { readonly className?: string } = {},
  ...children: readonly (string | Node)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

const svgNamespace = "http://www.w3.org/2000/svg";

/** A new element of a drawing. */
export function draw(
  tag: string,
  attributes: Readonly<Record<string, string | number>>,
  ...children: readonly Node[]
): SVGElement {
  const element = document.createElementNS(svgNamespace, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** A function that runs `paint` once before the next frame, however often it is called. */
export function oncePerFrame(paint: () => void): () => void {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      paint();
    });
  };
}

export const count = (n: number): string => Math.round(n).toLocaleString("en");

/** `0.48 M`, `64 k`. */
export const short = (n: number): string =>
  n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 2 : 1)} M` : n >= 1e3 ? `${Math.round(n / 1e3)} k` : String(n);

/** `1.2 MB`. */
export const bytes = (n: number): string => (n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${Math.ceil(n / 1e3)} kB`);

/** `40 s`, `3 min`. */
export const duration = (seconds: number): string =>
  seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
