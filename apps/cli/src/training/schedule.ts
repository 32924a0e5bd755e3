// Layer: apps/cli, training. The learning rate of each step, from its settings.
import { cosine, type Schedule, schedules, wsd } from "@diffmamba/nn";
import type { Settings } from "../settings/schema.js";

/** The schedule that the settings describe; it ends with the run unless `scheduleSteps` says otherwise. */
export function scheduleOf(train: Settings["train"]): Schedule {
  const { lr, schedule, warmup, lrFloor, lrDecaySteps } = train;
  const options = { warmup, steps: train.scheduleSteps || train.steps, floor: lr * lrFloor };
  switch (schedule) {
    case "constant":
      return schedules.constant(lr, options);
    case "linear":
      return schedules.linear(lr, options);
    case "cosine":
      return cosine(lr, options);
    case "wsd":
      return wsd(lr, { ...options, decay: lrDecaySteps || Math.ceil(options.steps / 10) });
  }
}
