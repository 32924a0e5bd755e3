// Layer: apps/playground, page. What computes, and the choice of another. Knows the DOM. Knows no device.

import type { BackendName, BackendState } from "../protocol.js";
import { byId, make } from "./elements.js";

export class BackendMenu {
  readonly #select = byId("backend", HTMLSelectElement);
  readonly #device = byId("backend-device", HTMLSpanElement);

  constructor(onChoose: (name: BackendName) => void) {
    this.#select.addEventListener("change", () => onChoose(this.#select.value as BackendName));
  }

  /** Another one is being opened. */
  wait(): void {
    this.#select.disabled = true;
    this.#device.textContent = "starting…";
  }

  show({ name, device, reports }: BackendState): void {
    this.#select.replaceChildren(
      ...reports.map((report) => {
        const remark = report.available ? (report.software ? " (in software)" : "") : " (not here)";
        const option = make("option", {}, `${report.title}${remark}`);
        Object.assign(option, { value: report.name, disabled: !report.available, title: report.reason });
        return option;
      }),
    );
    this.#select.value = name;
    this.#select.disabled = false;
    this.#device.textContent = device;
    this.#device.title = device;
  }

  fail(): void {
    this.#device.textContent = "nothing works here";
  }
}
