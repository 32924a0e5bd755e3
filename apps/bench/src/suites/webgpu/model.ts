// Layer: apps/bench, suites of the WebGPU backend. A training step and decoding of a Mamba-2 of the size of the published 130M one, by
// calls and from a recording. Knows models. Knows no kernel.
import type { MambaLM } from "@diffmamba/models";
import { type Device, noGrad, type Recorded } from "@diffmamba/tensor";
import { onDevice } from "../../data.js";
import { type Case, contest, type Entry, type RowPart, rowsOf, type Settings } from "../../race.js";
import type { Unit } from "../../row.js";
import { createLarge, weightBytes } from "../cpu/decode.js";
import { decodeOn } from "../decode.js";
import { describeModel } from "../languageModel.js";
import { stepOn } from "../train.js";
import { multiplyAdds, shaderCopy } from "./limits.js";

/** The same work, run again from a recording; the entry that is recorded stays the caller's. */
function fromRecording(device: Device, entry: Entry): Entry {
  let recorded: Recorded<void> | undefined;
  return {
    ...entry,
    name: `${entry.name}, recorded`,
    run() {
      if (recorded === undefined) {
        // Once plainly: what is made once is made outside of the recording.
        entry.run();
        recorded = device.record(() => void entry.run());
      }
      recorded.replay();
    },
    dispose: () => recorded?.dispose(),
  };
}

/** The sizes under the names that {@link createLarge} knows. */
function largeOf(settings: Settings): Settings {
  const { dModel, nLayers, dState, vocabSize } = settings;
  return { ...settings, wide: dModel, wideLayers: nLayers, wideState: dState, wideVocab: vocabSize };
}

const createOn = (device: Device, settings: Settings): MambaLM => createLarge(device, largeOf(settings), "f32");

function stepCase(settings: Settings): Case {
  const { batch, length } = settings;
  const shape = `${describeModel(settings)}, ${batch}x${length} tokens`;
  return {
    name: "mamba2 step",
    shape,
    patience: 4,
    async prepare({ devices: [device], enter }) {
      const ours = enter(stepOn(device, "mamba2", settings, batch, createOn(device, settings).train()));
      const replayed = enter(fromRecording(device, ours));
      const limit = enter(multiplyAdds(device, settings));
      const rows =
        (name: string, unit: Unit, entry: Entry, peers: readonly Entry[]) => (times: Parameters<typeof rowsOf>[3]) =>
          rowsOf({ name, shape, unit }, entry, peers, times);
      const all: readonly ((times: Parameters<typeof rowsOf>[3]) => RowPart[])[] = [
        rows("mamba2 step", "ms", ours, []),
        rows("mamba2 step, recorded", "ms", replayed, [ours]),
        rows("mamba2 step, recorded, 6 x parameters x tokens", "GFLOP/s", replayed, [limit]),
      ];
      return {
        entries: [ours, replayed, limit],
        checks: [],
        rows: (times) => all.flatMap((one) => one(times)),
      };
    },
  };
}

/** One token from a recording; `reads`: and it is read back before the next is asked for. */
function recordedDecode(device: Device, settings: Settings, reads: boolean): Entry {
  const model = createOn(device, settings);
  const state = model.initialState(1);
  const token = device.zeros([1, 1], "i32");
  const step = () => noGrad(() => void token.assign(model.advance(token, state).argmax().reshape(1, 1)));
  const entry = onDevice(device, {
    ...{ work: { "ms/token": 1 }, run: step, holds: [model, token, ...state.flat()] },
  });
  const replayed = fromRecording(device, entry);
  return {
    ...replayed,
    ...(reads && {
      async run() {
        replayed.run();
        await token.data();
      },
    }),
    dispose() {
      replayed.dispose?.();
      entry.dispose?.();
    },
  };
}

export function modelCases(settings: Settings): Case[] {
  const shape = `${describeModel(settings)}, batch 1`;
  const decode = (name: string, ours: (device: Device) => Entry) =>
    contest({
      ...{ name, shape, unit: "ms/token", ours },
      // Every weight is read once a token.
      ceilings: (device) => [shaderCopy(device, weightBytes(largeOf(settings), "f32"))],
    });
  return [
    stepCase(settings),
    decode("mamba2 decode", (device) => decodeOn(device, createOn(device, settings), 1)),
    decode("mamba2 decode, recorded, each token read", (device) => recordedDecode(device, settings, true)),
    decode("mamba2 decode, recorded", (device) => recordedDecode(device, settings, false)),
  ];
}
