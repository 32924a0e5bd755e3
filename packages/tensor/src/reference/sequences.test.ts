// Layer: tests of the reference backend. State, packing and padding of the three sequence routines.

import { describe, expect, it } from "vitest";
import {
  addUp,
  expectClose,
  expectGradients,
  expectSamples,
  placeInts,
  randomNumbers,
  relativeError,
  runBackward,
  runForward,
  type Sample,
  type Samples,
  sliceRow,
  sliceTokens,
  upstreamOf,
} from "./checks.testing.js";
import { type SequenceRoutine, sequenceRoutines } from "./sequences.testing.js";

const exact = 1e-12;
const same = Number.MIN_VALUE;

const seqIdx = placeInts([2, 9], [0, 0, 0, 2, 2, 2, 2, 3, 3, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
const lengths = placeInts([2], [8, 3]);

/** The inputs of one sequence of row b; a later sequence starts from no state. */
function oneSequence(kind: SequenceRoutine, inputs: Samples, b: number, start: number, end: number): Samples {
  const { initialState, ...rest } = inputs;
  const state = sliceRow(initialState, b);
  const own: Record<string, Sample> = { ...rest, initialState: start === 0 ? state : zerosLike(state) };
  for (const name of kind.tokens) own[name] = sliceTokens(inputs[name], b, start, end);
  return own;
}

function zerosLike({ shape, values }: Sample): Sample {
  return { shape, values: new Float64Array(values.length) };
}

for (const kind of sequenceRoutines) {
  describe.each(kind.chunkSizes)(`${kind.name} with chunks of %i`, (chunkSize) => {
    const next = randomNumbers(7);
    const inputs = kind.inputs(next, 2, 9);
    const upstream = upstreamOf(kind.routine(inputs, chunkSize), next);

    it.each([
      ["plain rows", {}, 0],
      ["rows sliced from a wider buffer", {}, 5],
      ["packed sequences", { seqIdx }, 0],
      ["padding", { lengths }, 0],
      ["packed sequences with padding, sliced", { seqIdx, lengths }, 5],
      ["a row of padding alone", { lengths: placeInts([2], [0, 9]) }, 0],
    ])("has gradients that match central differences: %s", (_, fixed, gap) => {
      expectGradients(kind.routine(inputs, chunkSize, fixed), inputs, upstream, { gap });
    });

    it("takes an absent gradient of an output as zero", () => {
      const routine = kind.routine(inputs, chunkSize, { seqIdx });
      const { dy, dfinalState } = upstream;
      const zeros = { dy: zerosLike(dy), dfinalState: zerosLike(dfinalState) };
      const without = [{}, { dy }, { dfinalState }] as readonly Samples[];
      for (const given of without) {
        expectSamples(runBackward(routine, inputs, given), runBackward(routine, inputs, { ...zeros, ...given }), exact);
      }
      expectGradients(routine, inputs, { dfinalState });
    });

    it("works without the inputs that may be absent", () => {
      const needed = ["x", "u", "dt", "delta", "A", "B", "C", "weight"];
      const few = Object.fromEntries(Object.entries(inputs).filter(([name]) => needed.includes(name)));
      expectGradients(kind.routine(few, chunkSize), few, upstream);
      const neutral: Record<string, Sample> = {};
      for (const name of ["bias", "D", "deltaBias", "dtBias", "initialState"]) {
        if (name in inputs) neutral[name] = zerosLike(inputs[name]);
      }
      const routine = kind.routine(inputs, chunkSize);
      expectSamples(runForward(routine, few), runForward(routine, { ...few, ...neutral }), exact);
    });

    it("gives packed sequences what each gives by itself", () => {
      const routine = kind.routine(inputs, chunkSize, { seqIdx, lengths: placeInts([2], [8, 9]) });
      const packed = runForward(routine, inputs);
      const gradients = runBackward(routine, inputs, upstream);
      const parts: Samples[] = [];
      for (const [b, start, end, last] of [
        [0, 0, 3, false],
        [0, 3, 7, false],
        [0, 7, 8, true],
        [1, 0, 1, false],
        [1, 1, 9, true],
      ] as const) {
        const own = oneSequence(kind, inputs, b, start, end);
        const ownRoutine = kind.routine(own, chunkSize);
        const alone = runForward(ownRoutine, own);
        expectClose("y", sliceTokens(packed.y, b, start, end), alone.y, exact);
        if (last) expectClose("finalState", sliceRow(packed.finalState, b), alone.finalState, exact);
        const dfinal = sliceRow(upstream.dfinalState, b);
        const d = runBackward(ownRoutine, own, {
          dy: sliceTokens(upstream.dy, b, start, end),
          dfinalState: last ? dfinal : zerosLike(dfinal),
        });
        for (const name of kind.tokens) {
          expectClose(`d${name}`, sliceTokens(gradients[`d${name}`], b, start, end), d[`d${name}`], exact);
        }
        if (start === 0) {
          expectClose("dinitialState", sliceRow(gradients.dinitialState, b), d.dinitialState, exact);
        }
        const local = ["initialState", ...kind.tokens].map((name) => `d${name}`);
        parts.push(Object.fromEntries(Object.entries(d).filter(([name]) => !local.includes(name))));
      }
      expectSamples(gradients, addUp(parts), exact);
    });

    it("gives padded rows what the shorter rows give, and zeros beyond", () => {
      const routine = kind.routine(inputs, chunkSize, { lengths });
      const padded = runForward(routine, inputs);
      const gradients = runBackward(routine, inputs, upstream);
      for (const [b, end] of [
        [0, 8],
        [1, 3],
      ]) {
        const own = oneSequence(kind, inputs, b, 0, end);
        const alone = runForward(kind.routine(own, chunkSize), own);
        expectClose("y", sliceTokens(padded.y, b, 0, end), alone.y, exact);
        expectClose("finalState", sliceRow(padded.finalState, b), alone.finalState, exact);
        const beyond = sliceTokens(padded.y, b, end, 9).values;
        expect(beyond).toEqual(new Float64Array(beyond.length));
        for (const name of kind.tokens) {
          const d = sliceTokens(gradients[`d${name}`], b, end, 9).values;
          expect(d).toEqual(new Float64Array(d.length));
        }
      }
    });

    it("does not read padding", () => {
      const routine = kind.routine(inputs, chunkSize, { lengths });
      const poisoned: Record<string, Sample> = { ...inputs };
      for (const name of kind.tokens) {
        const { shape, values } = inputs[name];
        const width = values.length / 18;
        poisoned[name] = { shape, values: values.slice().fill(Number.NaN, (9 + 3) * width) };
      }
      expectSamples(runForward(routine, poisoned), runForward(routine, inputs), same);
      expectSamples(runBackward(routine, poisoned, upstream), runBackward(routine, inputs, upstream), same);
    });

    it("keeps what is not a number within its sequence", () => {
      const routine = kind.routine(inputs, chunkSize, { seqIdx });
      const poisoned: Record<string, Sample> = { ...inputs };
      for (const name of kind.tokens) {
        const { shape, values } = inputs[name];
        const width = values.length / 18;
        poisoned[name] = { shape, values: values.slice().fill(Number.NaN, 0, 3 * width) };
      }
      const [ill, well] = [poisoned, inputs].map((given) => ({
        ...runForward(routine, given, { poisoned: true }),
        ...runBackward(routine, given, upstream, { poisoned: true }),
      })) as readonly Samples[];
      expect(ill.y.values[0]).toBeNaN();
      for (const name of ["y", ...kind.tokens.map((token) => `d${token}`)]) {
        expectClose(name, sliceTokens(ill[name], 0, 3, 9), sliceTokens(well[name], 0, 3, 9), same);
      }
      expectClose("finalState", ill.finalState, well.finalState, same);
    });

    it("continues from a state as if it had not stopped", () => {
      const row = oneSequence(kind, inputs, 1, 0, 9);
      const dy = sliceTokens(upstream.dy, 1, 0, 9);
      const dfinalState = sliceRow(upstream.dfinalState, 1);
      const whole = runForward(kind.routine(row, chunkSize), row);
      const gradients = runBackward(kind.routine(row, chunkSize), row, { dy, dfinalState });
      for (const cut of [1, 4, 8]) {
        const first = oneSequence(kind, inputs, 1, 0, cut);
        const begin = runForward(kind.routine(first, chunkSize), first);
        const second = { ...oneSequence(kind, inputs, 1, cut, 9), initialState: begin.finalState };
        const rest = runForward(kind.routine(second, chunkSize), second);
        expectClose("y", sliceTokens(whole.y, 0, 0, cut), begin.y, exact);
        expectClose("y", sliceTokens(whole.y, 0, cut, 9), rest.y, exact);
        expectClose("finalState", whole.finalState, rest.finalState, exact);
        const d2 = runBackward(kind.routine(second, chunkSize), second, {
          dy: sliceTokens(dy, 0, cut, 9),
          dfinalState,
        });
        const d1 = runBackward(kind.routine(first, chunkSize), first, {
          dy: sliceTokens(dy, 0, 0, cut),
          dfinalState: d2.dinitialState,
        });
        for (const name of kind.tokens) {
          expectClose(`d${name}`, sliceTokens(gradients[`d${name}`], 0, 0, cut), d1[`d${name}`], exact);
          expectClose(`d${name}`, sliceTokens(gradients[`d${name}`], 0, cut, 9), d2[`d${name}`], exact);
        }
        expectClose("dinitialState", gradients.dinitialState, d1.dinitialState, exact);
      }
    });

    it("computes in f32 to its precision", () => {
      const routine = kind.routine(inputs, chunkSize, { seqIdx });
      const [single, double] = (["f32", "f64"] as const).map((dtype) => runForward(routine, inputs, { dtype }));
      expectSamples(single, double, 1e-6);
      const [d32, d64] = (["f32", "f64"] as const).map((dtype) => runBackward(routine, inputs, upstream, { dtype }));
      expectSamples(d32, d64, 1e-5);
      expect(relativeError(single.y.values, double.y.values)).toBeGreaterThan(0);
    });

    it("takes rows of no tokens", () => {
      const empty = kind.inputs(next, 2, 0);
      const routine = kind.routine(empty, Math.max(chunkSize, 1));
      expectClose("finalState", runForward(routine, empty).finalState, empty.initialState, exact);
      const d = runBackward(routine, empty, { dfinalState: upstream.dfinalState });
      expectClose("dinitialState", d.dinitialState, upstream.dfinalState, exact);
    });
  });
}
