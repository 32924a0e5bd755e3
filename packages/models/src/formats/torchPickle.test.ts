// Checkpoint formats: pickles that ask for more than tensors, or lie about them; none of it may run, hang or eat memory.
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import {
  dict,
  global,
  int,
  join,
  le,
  persistentId,
  reduce,
  tensor,
  text,
  torchFile,
  tuple,
} from "./__fixtures__/build.js";
import { FormatError } from "./errors.js";
import { TorchBinFile } from "./torchBin.js";

const path = "m/pytorch_model.bin";
const six = new Uint8Array(Float32Array.of(0, 1, 2, 3, 4, 5).buffer);

async function open(bytes: Uint8Array): Promise<TorchBinFile> {
  const files = memoryFiles();
  await files.makeDirectory("m");
  await files.createExclusive(path, bytes);
  return TorchBinFile.open(files, path);
}

/** One tensor over a storage of six floats. */
const one = (shape: readonly number[], strides: readonly number[], offset = 0, length = 6) =>
  torchFile(dict({ w: tensor({ length, offset, shape, strides }) }), { 0: six });

describe("hostile pickles", () => {
  const w = tensor({ length: 6, shape: [6], strides: [1] });
  const pickled = (...parts: readonly (string | readonly number[])[]) => join([0x80, 2], ...parts, ".");
  const call = (callee: readonly number[], ...args: readonly (readonly number[])[]) =>
    dict({ w: [...callee, ...tuple(...args), reduce] });
  const notSo = "calls something that must not be called so; refused: only tensors are read";
  const stateOf = (object: readonly number[]) => dict({ w: [...object, 0x7d, 0x62] });
  const id = (...items: readonly (readonly number[])[]) => dict({ w: [...tuple(...items), persistentId] });
  const float = global("torch", "FloatStorage");
  const outside = "refers to something outside that is not a tensor's storage; refused";

  it.each<readonly [string, Uint8Array, string]>([
    ["os.system", call(global("os", "system"), text("id")), "asks to call os.system; refused: only tensors are read"],
    ["posix.system, never called", pickled(global("posix", "system")), "asks to call posix.system; refused"],
    ["eval as two strings", pickled(text("builtins"), text("eval"), [0x93]), "asks to call builtins.eval; refused"],
    [
      "a name in parts",
      pickled(text("torch"), text("_utils._rebuild_tensor"), [0x93]),
      "asks to call torch._utils._rebuild_tensor;",
    ],
    ["torch.load", call(global("torch", "load"), text("x")), "asks to call torch.load; refused"],
    [
      "a global of the prototype",
      pickled(global("constructor", "constructor")),
      "asks to call constructor.constructor;",
    ],
    ["a name that is a number", pickled([0x4b, 1, 0x4b, 2, 0x93]), "imports something whose name is not text"],
    ["INST", pickled("(", text("id"), "i", "os\nsystem\n"), "asks to call os.system; refused"],
    ["OBJ", pickled("(", global("collections", "OrderedDict"), "o"), 'has the opcode 0x6f ("o")'],
    ["NEWOBJ", pickled(global("collections", "OrderedDict"), ")", [0x81]), "has the opcode 0x81"],
    ["NEWOBJ_EX", pickled(global("collections", "OrderedDict"), ")}", [0x92]), "has the opcode 0x92"],
    ["EXT1", pickled([0x82, 1]), "has the opcode 0x82"],
    ["a buffer from outside", pickled([0x97]), "has the opcode 0x97"],
    ["a persistent id as text", pickled("Ptext\n"), 'has the opcode 0x50 ("P")'],
    ["an OrderedDict with arguments", call(global("collections", "OrderedDict"), [0x5d]), notSo],
    ["a call of a storage type", call(float, int(5)), notSo],
    ["a call of a type", call(global("torch", "Tensor"), int(5)), notSo],
    ["a call of text", call(text("os.system"), text("id")), notSo],
    ["a call of a tensor", call(w, int(1)), notSo],
    ["a call of a dict", call([0x7d], int(1)), notSo],
    [
      "a call through a type",
      call(global("torch._tensor", "_rebuild_from_type_v2"), text("eval"), global("torch", "Tensor"), [0x29], [0x7d]),
      notSo,
    ],
    [
      "a call through itself",
      call(
        global("torch._tensor", "_rebuild_from_type_v2"),
        global("torch._tensor", "_rebuild_from_type_v2"),
        global("torch", "Tensor"),
        [0x29],
        [0x7d],
      ),
      notSo,
    ],
    [
      "arguments that are no tuple",
      pickled(global("collections", "OrderedDict"), "]R"),
      "without a tuple of arguments",
    ],
    ["a state for a tensor", stateOf(w), "sets the state of an object; refused"],
    [
      "a state for a function",
      stateOf(global("torch._utils", "_rebuild_tensor_v2")),
      "sets the state of an object; refused",
    ],
    ["a state for a storage type", stateOf(float), "sets the state of an object; refused"],
    ["a state for a list", stateOf([0x5d]), "sets the state of an object; refused"],
    ["a state for nothing", pickled("}b"), "takes a value from an empty stack"],
    ["an id that is text", pickled(text("x"), "Q"), outside],
    ["an id of another kind", id(text("module"), float, text("0"), text("cpu"), int(6)), outside],
    ["an id without a type", id(text("storage"), text("FloatStorage"), text("0"), text("cpu"), int(6)), outside],
    ["an id of negative length", id(text("storage"), float, text("0"), text("cpu"), int(-6)), outside],
    ["an id without a length", id(text("storage"), float, text("0"), text("cpu")), outside],
    [
      "a tensor over nothing",
      call(global("torch._utils", "_rebuild_tensor_v2"), [0x4e], int(0), tuple(), tuple()),
      notSo,
    ],
    ["a parameter of nothing", call(global("torch._utils", "_rebuild_parameter"), [0x4e], [0x88], [0x7d]), notSo],
    ["a value never kept", pickled("h", [7]), "recalls value 7, which was never kept"],
    ["an empty stack", pickled(""), "takes a value from an empty stack"],
    ["a stack below a mark", pickled("}(", "s"), "takes a value from an empty stack"],
    ["a mark never set", pickled("t"), "goes back to a mark that was never set"],
    ["a key without a value", pickled("}(", text("a"), "u"), "sets a key without a value"],
    ["a key that is a dict", pickled("}}", "}s"), "with a key that is neither text nor a number"],
    ["an item of no dict", pickled("]", text("a"), "}s"), "sets an item of something that is no dict"],
    ["an append to no list", pickled("}}a"), "appends to something that is no list"],
    ["text beyond the end", pickled("X", [0xff, 0xff, 0xff, 0xff]), "its pickle ends in the middle"],
    ["bytes of 2^64 - 1", pickled([0x8e], Array(8).fill(255)), "its pickle ends in the middle"],
    ["text that is not UTF-8", pickled("X", [1, 0, 0, 0, 0xff]), "has text that is not UTF-8"],
    ["a name without an end", join([0x80, 2], "cos\nsystem"), "its pickle ends in the middle"],
    ["no end", join([0x80, 2], "}"), "its pickle ends in the middle"],
    ["protocol 0", join("(dp0\n."), "does not begin with a protocol of 2 to 5"],
    ["protocol 6", join([0x80, 6], "}."), "is of protocol 6; 2 to 5 are read"],
    ["an integer of 200 bytes", pickled([0x8a, 200], Array(200).fill(1)), "has an integer of 200 bytes"],
    ["an integer of 2^62", pickled([0x8a, 8], le(2 ** 62, 8)), "has the integer 4611686018427387904, too large"],
    ["a list", pickled("]"), "holds no dict of tensors"],
    ["a tensor alone", pickled(w), "holds no dict of tensors"],
    ["an entry that is a number", dict({ epoch: int(3) }), 'its entry "epoch" is not a tensor'],
    ["a key that is a number", pickled("}", int(1), w, "s"), 'its entry "1" is not a tensor'],
    ["a nested dict", dict({ state_dict: [0x7d] }), 'its entry "state_dict" is not a tensor'],
  ])("%s", async (_, pickle, message) => {
    const opening = open(torchFile(pickle, { 0: six }));
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(/^m\/pytorch_model\.bin: /);
  });

  it("never take unbounded steps or depth", async () => {
    const steps = join([0x80, 2, 0x4e], new Uint8Array(3_000_000).fill(0x32), ".");
    await expect(open(torchFile(steps))).rejects.toThrow("takes more than 2000000 steps; refused");
    const deep = join([0x80, 2, 0x29], new Uint8Array(1_000_000).fill(0x85), ".");
    await expect(open(torchFile(deep))).rejects.toThrow("holds no dict of tensors");
    const large = join([0x80, 2], new Uint8Array(32_000_000), ".");
    await expect(open(torchFile(large))).rejects.toThrow("its pickle has 32000003 bytes; at most");
  });

  it("do not see themselves", async () => {
    const loop = join([0x80, 2, 0x7d, 0x71, 0], text("self"), [0x68, 0, 0x73, 0x2e]);
    await expect(open(torchFile(loop))).rejects.toThrow('its entry "self" is not a tensor');
    const state = join([0x80, 2, 0x7d], text("__class__"), text("x"), [0x73, 0x7d, 0x62, 0x2e]);
    await expect(open(torchFile(state))).rejects.toThrow('its entry "__class__" is not a tensor');
  });

  it.each([
    ["too long", [7], [1], 0],
    ["beyond the end", [6], [1], 1],
    ["a stride too far", [3], [3], 0],
    ["a product that overflows", [2 ** 30, 2 ** 30], [0, 0], 0],
    ["more than its storage, by strides of 0", [1_000_000_000], [0], 0],
    ["an offset beyond", [1], [1], 6],
    ["a huge stride", [2], [2 ** 52], 0],
    ["a huge offset", [1], [1], 2 ** 52],
  ])("of a tensor %s", async (_, shape, strides, offset) => {
    await expect(open(one(shape, strides, offset))).rejects.toThrow(FormatError);
    await expect(open(one(shape, strides, offset))).rejects.toThrow('tensor "w": shape (');
  });

  it.each([
    ["a negative size", [-6], [1], 0],
    ["a negative stride", [6], [-1], 5],
    ["a negative offset", [6], [1], -1],
    ["fewer strides than axes", [2, 3], [3], 0],
    ["too many axes", Array(33).fill(1), Array(33).fill(1), 0],
  ])("of a tensor with %s", async (_, shape, strides, offset) => {
    await expect(open(one(shape, strides, offset))).rejects.toThrow(notSo);
  });

  it("of a storage that claims more than the file has", async () => {
    await expect(open(one([6], [1], 0, 2 ** 40))).rejects.toThrow(
      "has 24 bytes, but 1,099,511,627,776 elements of F32",
    );
  });
});
