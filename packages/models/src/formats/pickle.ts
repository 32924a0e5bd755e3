// Checkpoint formats: a reader of Python pickles, protocol 2 to 5, that runs no code. Source: CPython's Lib/pickletools.py.
// It builds lists, tuples, dicts and plain values; every name that a pickle wants to import or call goes to the host, which
// knows the few that are allowed. Work and memory are bounded by the pickle's length. Knows no torch, no file.
import { FormatError, shown } from "./errors.js";

/** Whatever the host makes: a name it allows, or what it returns for a call or a persistent id. */
export abstract class PickleObject {
  abstract readonly kind: string;
}

export class PickleTuple {
  constructor(readonly items: readonly PickleValue[]) {}
}
export class PickleList {
  readonly items: PickleValue[] = [];
}
export class PickleDict {
  readonly entries = new Map<string | number, PickleValue>();
}

export type PickleValue =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | PickleTuple
  | PickleList
  | PickleDict
  | PickleObject;

/** What a pickle may import and call. */
export interface PickleHost {
  /** The object for an allowed global; undefined refuses it. */
  global(module: string, name: string): PickleObject | undefined;
  /** The result of calling an allowed object; undefined refuses the call. */
  call(callee: PickleValue, args: readonly PickleValue[]): PickleValue | undefined;
  /** True where the state of a BUILD may be dropped; no state is ever applied. */
  ignoresState(target: PickleValue): boolean;
  /** The object that a persistent id stands for; undefined refuses it. */
  persistent(id: PickleValue): PickleValue | undefined;
}

/** Larger pickles, or of more steps, are refused; a model of a thousand tensors needs about 100 KB and 30,000 steps. */
const maxBytes = 32_000_000;
const maxSteps = 2_000_000;
const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * Reads the one value of a pickle.
 * @param path the file's path, for messages
 * @throws FormatError for a damaged pickle, an opcode that is not read, or anything the host refuses
 */
export function readPickle(bytes: Uint8Array, path: string, host: PickleHost): PickleValue {
  if (bytes.length > maxBytes)
    throw new FormatError(path, `its pickle has ${bytes.length} bytes; at most ${maxBytes} are read`);
  return new PickleReader(bytes, path, host).run();
}

class PickleReader {
  private readonly view: DataView;
  private readonly stack: PickleValue[] = [];
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, PickleValue>();
  private at = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly path: string,
    private readonly host: PickleHost,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): PickleValue {
    if (this.bytes[0] !== 0x80) this.fail("does not begin with a protocol of 2 to 5");
    for (let step = 0; step < maxSteps; step++) {
      const opcodeAt = this.at;
      const opcode = this.u8();
      if (opcode === 0x2e) return this.pop(); // STOP
      if (!this.step(opcode)) {
        this.at = opcodeAt;
        const letter = opcode > 0x20 && opcode < 0x7f ? ` ("${String.fromCharCode(opcode)}")` : "";
        this.fail(
          `has the opcode 0x${opcode.toString(16).padStart(2, "0")}${letter}, which no file of tensors needs; refused`,
        );
      }
    }
    return this.fail(`takes more than ${maxSteps} steps; refused`);
  }

  /** @returns false for an opcode that is not read */
  private step(opcode: number): boolean {
    switch (opcode) {
      case 0x80: {
        const protocol = this.u8(); // PROTO
        if (protocol < 2 || protocol > 5) this.fail(`is of protocol ${protocol}; 2 to 5 are read`);
        return true;
      }
      case 0x95: // FRAME: only a hint of how much to buffer
        this.length8();
        return true;
      case 0x28: // MARK
        this.marks.push(this.stack.length);
        return true;
      case 0x30: // POP
        if (this.marks.at(-1) === this.stack.length) this.marks.pop();
        else this.pop();
        return true;
      case 0x31: // POP_MARK
        this.popMark();
        return true;
      case 0x32: // DUP
        this.stack.push(this.top());
        return true;
      default:
        return this.constant(opcode) || this.memoised(opcode) || this.container(opcode) || this.object(opcode);
    }
  }

  private constant(opcode: number): boolean {
    switch (opcode) {
      case 0x4e: // NONE
        return this.push(null);
      case 0x88: // NEWTRUE
        return this.push(true);
      case 0x89: // NEWFALSE
        return this.push(false);
      case 0x4a: // BININT
        return this.push(this.view.getInt32(this.take(4), true));
      case 0x4b: // BININT1
        return this.push(this.u8());
      case 0x4d: // BININT2
        return this.push(this.view.getUint16(this.take(2), true));
      case 0x8a: // LONG1
        return this.push(this.long(this.u8()));
      case 0x47: // BINFLOAT, big-endian
        return this.push(this.view.getFloat64(this.take(8), false));
      case 0x8c: // SHORT_BINUNICODE
        return this.push(this.text(this.u8()));
      case 0x58: // BINUNICODE
        return this.push(this.text(this.u32()));
      case 0x8d: // BINUNICODE8
        return this.push(this.text(this.length8()));
      case 0x43: // SHORT_BINBYTES
        return this.push(this.raw(this.u8()));
      case 0x42: // BINBYTES
        return this.push(this.raw(this.u32()));
      case 0x8e: // BINBYTES8
        return this.push(this.raw(this.length8()));
      default:
        return false;
    }
  }

  private memoised(opcode: number): boolean {
    switch (opcode) {
      case 0x71: // BINPUT
        this.memo.set(this.u8(), this.top());
        return true;
      case 0x72: // LONG_BINPUT
        this.memo.set(this.u32(), this.top());
        return true;
      case 0x94: // MEMOIZE
        this.memo.set(this.memo.size, this.top());
        return true;
      case 0x68: // BINGET
        return this.push(this.recall(this.u8()));
      case 0x6a: // LONG_BINGET
        return this.push(this.recall(this.u32()));
      default:
        return false;
    }
  }

  private container(opcode: number): boolean {
    switch (opcode) {
      case 0x29: // EMPTY_TUPLE
        return this.push(new PickleTuple([]));
      case 0x85: // TUPLE1, TUPLE2, TUPLE3
      case 0x86:
      case 0x87:
        return this.push(new PickleTuple(this.popMany(opcode - 0x84)));
      case 0x74: // TUPLE
        return this.push(new PickleTuple(this.popMark()));
      case 0x5d: // EMPTY_LIST
        return this.push(new PickleList());
      case 0x61: // APPEND
        this.append(this.popMany(1));
        return true;
      case 0x65: // APPENDS
        this.append(this.popMark());
        return true;
      case 0x7d: // EMPTY_DICT
        return this.push(new PickleDict());
      case 0x73: // SETITEM
        this.setItems(this.popMany(2));
        return true;
      case 0x75: // SETITEMS
        this.setItems(this.popMark());
        return true;
      default:
        return false;
    }
  }

  private object(opcode: number): boolean {
    switch (opcode) {
      case 0x63: // GLOBAL
        return this.push(this.global(this.line(), this.line()));
      case 0x93: {
        const [module, name] = this.popMany(2); // STACK_GLOBAL
        if (typeof module !== "string" || typeof name !== "string")
          this.fail("imports something whose name is not text");
        return this.push(this.global(module, name));
      }
      case 0x69: // INST: a call by name, from protocol 0
        this.refuse(`${this.line()}.${this.line()}`);
        break;
      case 0x52: {
        const [callee = null, args] = this.popMany(2); // REDUCE
        if (!(args instanceof PickleTuple)) this.fail("calls something without a tuple of arguments");
        const result = this.host.call(callee, args.items);
        if (result === undefined)
          this.fail("calls something that must not be called so; refused: only tensors are read");
        return this.push(result);
      }
      case 0x62: // BUILD: gives an object a state, which runs its code
        this.pop();
        if (!this.host.ignoresState(this.top()))
          this.fail("sets the state of an object; refused: only tensors are read");
        return true;
      case 0x51: {
        const object = this.host.persistent(this.pop()); // BINPERSID
        if (object === undefined) this.fail("refers to something outside that is not a tensor's storage; refused");
        return this.push(object);
      }
    }
    return false;
  }

  private global(module: string, name: string): PickleObject {
    return this.host.global(module, name) ?? this.refuse(`${module}.${name}`);
  }

  private refuse(name: string): never {
    throw new FormatError(this.path, `asks to call ${shown(name)}; refused: only tensors are read`);
  }

  private append(items: readonly PickleValue[]): void {
    const list = this.top();
    if (!(list instanceof PickleList)) this.fail("appends to something that is no list");
    for (const item of items) list.items.push(item);
  }

  private setItems(items: readonly PickleValue[]): void {
    const dict = this.top();
    if (!(dict instanceof PickleDict)) this.fail("sets an item of something that is no dict");
    if (items.length % 2 !== 0) this.fail("sets a key without a value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key !== "string" && typeof key !== "number")
        this.fail("has a dict with a key that is neither text nor a number");
      dict.entries.set(key, items[i + 1] ?? null);
    }
  }

  private push(value: PickleValue): true {
    this.stack.push(value);
    return true;
  }

  private top(): PickleValue {
    this.need(1);
    return this.stack.at(-1) ?? null;
  }

  private pop(): PickleValue {
    this.need(1);
    return this.stack.pop() ?? null;
  }

  /** The topmost values, first pushed first; never those below the last mark. */
  private popMany(n: number): PickleValue[] {
    this.need(n);
    return this.stack.splice(this.stack.length - n, n);
  }

  private need(n: number): void {
    if (this.stack.length - (this.marks.at(-1) ?? 0) < n) this.fail("takes a value from an empty stack");
  }

  private popMark(): PickleValue[] {
    const mark = this.marks.pop();
    if (mark === undefined) this.fail("goes back to a mark that was never set");
    return this.stack.splice(mark);
  }

  private recall(index: number): PickleValue {
    const value = this.memo.get(index);
    if (value === undefined) this.fail(`recalls value ${index}, which was never kept`);
    return value;
  }

  /** Moves on by `n` bytes and returns where they begin. */
  private take(n: number): number {
    const start = this.at;
    if (n > this.bytes.length - start) this.fail("ends in the middle");
    this.at += n;
    return start;
  }

  private u8(): number {
    return this.view.getUint8(this.take(1));
  }

  private u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  private length8(): number {
    const at = this.take(8);
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32;
  }

  private raw(length: number): Uint8Array {
    const start = this.take(length);
    return this.bytes.subarray(start, start + length);
  }

  private text(length: number): string {
    return this.decode(this.raw(length));
  }

  private line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    if (end < 0) this.fail("ends in the middle");
    const line = this.decode(this.bytes.subarray(this.at, end));
    this.at = end + 1;
    return line;
  }

  private decode(bytes: Uint8Array): string {
    try {
      return utf8.decode(bytes);
    } catch {
      return this.fail("has text that is not UTF-8");
    }
  }

  /** A little-endian two's complement integer of `n` bytes. */
  private long(n: number): number {
    if (n > 8) this.fail(`has an integer of ${n} bytes; at most 8 are read`);
    let value = 0n;
    this.raw(n).forEach((byte, i) => {
      value |= BigInt(byte) << BigInt(8 * i);
    });
    const signed = Number(BigInt.asIntN(8 * n, value));
    if (!Number.isSafeInteger(signed))
      this.fail(`has the integer ${BigInt.asIntN(8 * n, value)}, too large to be a size`);
    return signed;
  }

  private fail(detail: string): never {
    throw new FormatError(this.path, `its pickle ${detail} (byte ${this.at}). Nothing was loaded.`);
  }
}
