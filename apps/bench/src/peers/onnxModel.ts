// Layer: apps/bench, peers. An ONNX model of one node, written by hand: the few fields of onnx.proto that a matrix product needs,
// in protobuf's wire format. Knows bytes. Knows no runtime.

/** Field numbers of onnx.proto (IR version 10), by message. */
const fields = {
  model: { irVersion: 1, graph: 7, opsetImport: 8 },
  opset: { version: 2 },
  graph: { node: 1, name: 2, input: 11, output: 12 },
  node: { input: 1, output: 2, opType: 4, attribute: 5 },
  attribute: { name: 1, i: 3, type: 20 },
  valueInfo: { name: 1, type: 2 },
  type: { tensorType: 1 },
  tensorType: { elemType: 1, shape: 2 },
  shape: { dim: 1 },
  dim: { dimValue: 1 },
} as const;

const FLOAT = 1;
const INT_ATTRIBUTE = 2;

type Field = readonly [number: number, value: number | string | Uint8Array];

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) + 128);
  }
}

/** A message: whole numbers as varints, texts and messages with their length before them. */
function message(...entries: readonly Field[]): Uint8Array {
  const bytes: number[] = [];
  for (const [number, value] of entries) {
    if (typeof value === "number") {
      bytes.push(...varint(number * 8), ...varint(value));
      continue;
    }
    const content = typeof value === "string" ? new TextEncoder().encode(value) : value;
    bytes.push(...varint(number * 8 + 2), ...varint(content.length), ...content);
  }
  return Uint8Array.from(bytes);
}

/** Rows and columns of an input or output. */
export type Matrix = readonly [name: string, rows: number, columns: number];

function matrix([name, ...sizes]: Matrix): Uint8Array {
  const { valueInfo, type, tensorType, shape, dim } = fields;
  const dims = sizes.map((size): Field => [shape.dim, message([dim.dimValue, size])]);
  const tensor = message([tensorType.elemType, FLOAT], [tensorType.shape, message(...dims)]);
  return message([valueInfo.name, name], [valueInfo.type, message([type.tensorType, tensor])]);
}

/** The bytes of a model with one node, whose attributes are whole numbers. */
export function singleNodeModel(
  opType: string,
  attributes: Readonly<Record<string, number>>,
  inputs: readonly Matrix[],
  output: Matrix,
): Uint8Array {
  const { model, opset, graph, node, attribute } = fields;
  const body = message(
    ...inputs.map(([name]): Field => [node.input, name]),
    [node.output, output[0]],
    [node.opType, opType],
    ...Object.entries(attributes).map(
      ([name, value]): Field => [
        node.attribute,
        message([attribute.name, name], [attribute.i, value], [attribute.type, INT_ATTRIBUTE]),
      ],
    ),
  );
  const content = message(
    [graph.node, body],
    [graph.name, opType],
    ...inputs.map((input): Field => [graph.input, matrix(input)]),
    [graph.output, matrix(output)],
  );
  return message([model.irVersion, 10], [model.graph, content], [model.opsetImport, message([opset.version, 21])]);
}
