// Checkpoint formats: what a PyTorch state dict's pickle may contain, and nothing else: storages, tensors over them, dicts.
// Source: torch/_utils.py (_rebuild_tensor_v2, _rebuild_parameter) and torch/serialization.py (persistent ids).
// Knows which names are harmless and what they mean; reads no file.
import { elementCount, FormatError, isSize, maxRank, shapeText, shown } from "./errors.js";
import { PickleDict, type PickleHost, PickleObject, PickleTuple, type PickleValue, readPickle } from "./pickle.js";

/** A run of elements in the archive's entry `data/<key>`. */
export class TorchStorage extends PickleObject {
  readonly kind = "storage";
  constructor(
    readonly key: string,
    /** The element type, by its safetensors name. */
    readonly stored: string,
    /** Elements in the storage. */
    readonly length: number,
  ) {
    super();
  }
}

/** A strided view of a storage; offset and strides count elements. */
export class TorchTensor extends PickleObject {
  readonly kind = "tensor";
  constructor(
    readonly storage: TorchStorage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {
    super();
  }
}

class StorageType extends PickleObject {
  readonly kind = "storage type";
  constructor(readonly stored: string) {
    super();
  }
}

type Call = (args: readonly PickleValue[]) => PickleValue | undefined;

class Callable extends PickleObject {
  readonly kind = "callable";
  constructor(readonly call: Call) {
    super();
  }
}

/** A class that is only ever named, as the type that a tensor had. */
class TypeName extends PickleObject {
  readonly kind = "type name";
}

const orderedDict = new Callable((args) => (args.length === 0 ? new PickleDict() : undefined));
// (storage, offset, size, stride, requires_grad, backward_hooks[, metadata])
const rebuildTensor = new Callable(([storage, offset, size, stride]) => {
  const shape = sizes(size);
  const strides = sizes(stride);
  if (
    !(storage instanceof TorchStorage) ||
    !isSize(offset) ||
    shape === undefined ||
    strides?.length !== shape.length
  ) {
    return undefined;
  }
  return new TorchTensor(storage, offset, shape, strides);
});
// (data, requires_grad, backward_hooks)
const rebuildParameter = new Callable(([data]) => (data instanceof TorchTensor ? data : undefined));
// (function, type, arguments, state): a tensor with attributes of its own; the state is dropped
const rebuildFromType = new Callable(([callee, type, args]) => {
  if (!(callee instanceof Callable) || (callee !== rebuildTensor && callee !== rebuildParameter)) return undefined;
  if (!(type instanceof TypeName) || !(args instanceof PickleTuple)) return undefined;
  return callee.call(args.items);
});

const storageTypes: readonly (readonly [string, string])[] = [
  ["DoubleStorage", "F64"],
  ["FloatStorage", "F32"],
  ["HalfStorage", "F16"],
  ["BFloat16Storage", "BF16"],
  ["LongStorage", "I64"],
  ["IntStorage", "I32"],
  ["ShortStorage", "I16"],
  ["CharStorage", "I8"],
  ["ByteStorage", "U8"],
  ["BoolStorage", "BOOL"],
];

const allowed: ReadonlyMap<string, PickleObject> = new Map<string, PickleObject>([
  ["collections.OrderedDict", orderedDict],
  ["torch._utils._rebuild_tensor_v2", rebuildTensor],
  ["torch._utils._rebuild_parameter", rebuildParameter],
  ["torch._tensor._rebuild_from_type_v2", rebuildFromType],
  ["torch.Tensor", new TypeName()],
  ["torch.nn.parameter.Parameter", new TypeName()],
  ["torch.storage.UntypedStorage", new StorageType("U8")],
  ...storageTypes.map(([name, stored]) => [`torch.${name}`, new StorageType(stored)] as const),
]);

const host: PickleHost = {
  global: (module, name) => allowed.get(`${module}.${name}`),
  call: (callee, args) => (callee instanceof Callable ? callee.call(args) : undefined),
  // An OrderedDict carries `_metadata`, the versions of the modules.
  ignoresState: (target) => target instanceof PickleDict,
  // ("storage", storage type, key, location, length)
  persistent(id) {
    if (!(id instanceof PickleTuple)) return undefined;
    const [kind, type, key, , length] = id.items;
    if (kind !== "storage" || !(type instanceof StorageType) || typeof key !== "string" || !isSize(length))
      return undefined;
    return new TorchStorage(key, type.stored, length);
  },
};

function sizes(value: PickleValue | undefined): readonly number[] | undefined {
  if (!(value instanceof PickleTuple) || value.items.length > maxRank) return undefined;
  return value.items.every(isSize) ? value.items : undefined;
}

/**
 * The tensors of a state dict's pickle, in its order, each checked to lie within its storage.
 * @throws FormatError for anything but a dict of tensors, naming what was asked for or the tensor that is wrong
 */
export function readStateDict(pickle: Uint8Array, path: string): ReadonlyMap<string, TorchTensor> {
  const root = readPickle(pickle, path, host);
  if (!(root instanceof PickleDict))
    throw new FormatError(path, "holds no dict of tensors (a state dict). Nothing was loaded.");
  const tensors = new Map<string, TorchTensor>();
  for (const [name, value] of root.entries) {
    if (typeof name !== "string" || !(value instanceof TorchTensor)) {
      throw new FormatError(
        path,
        `its entry "${shown(String(name))}" is not a tensor: expected a state dict, which is a dict of tensors. Nothing was loaded.`,
      );
    }
    checkBounds(name, value, path);
    tensors.set(name, value);
  }
  return tensors;
}

function checkBounds(name: string, { storage, offset, shape, strides }: TorchTensor, path: string): void {
  const elements = elementCount(shape);
  let last = offset;
  shape.forEach((size, axis) => {
    last += (size - 1) * (strides[axis] ?? 0);
  });
  // More elements than the storage has (strides of 0) would let a small file ask for any amount of memory.
  if (elements === undefined || elements > storage.length || (elements > 0 && !(last < storage.length))) {
    throw new FormatError(
      path,
      `tensor "${shown(name)}": shape ${shapeText(shape)}, strides ${shapeText(strides)} and offset ${offset} do not fit its storage of ${storage.length} elements. Nothing was loaded.`,
    );
  }
}
