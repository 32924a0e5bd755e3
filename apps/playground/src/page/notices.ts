// Layer: apps/playground, page. Messages to the visitor: what happened, what it means, what can be done. Knows the DOM alone.

import { byId, make } from "./elements.js";

export interface Notice {
  readonly kind: "error" | "note";
  readonly title: string;
  readonly detail?: string;
  readonly actions?: readonly { readonly label: string; readonly run: () => void }[];
}

/** Shows a message until it is dismissed or one of its actions is taken. @returns takes it away */
export function showNotice({ kind, title, detail, actions = [] }: Notice): () => void {
  const notices = byId("notices", HTMLDivElement);
  const text = make("p", {}, make("b", {}, title));
  if (detail !== undefined && detail !== "") text.append(" ", make("span", { className: "detail" }, detail));
  const notice = make("div", { className: `notice ${kind}` }, text);
  notice.setAttribute("role", kind === "error" ? "alert" : "status");
  const remove = () => notice.remove();
  for (const { label, run } of actions) notice.append(button(label, run, remove));
  notice.append(button("Dismiss", () => undefined, remove));
  notices.append(notice);
  const { top } = notice.getBoundingClientRect();
  if (kind === "error" && (top < 0 || top > innerHeight)) notice.scrollIntoView({ block: "center" });
  return remove;
}

function button(label: string, run: () => void, remove: () => void): HTMLButtonElement {
  const element = make("button", {}, label);
  element.type = "button";
  element.addEventListener("click", () => {
    remove();
    run();
  });
  return element;
}

/** Takes all messages away. */
export function clearNotices(): void {
  byId("notices", HTMLDivElement).replaceChildren();
}
