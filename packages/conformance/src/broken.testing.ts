// Layer: tests of the conformance suite. Devices with one kernel that is wrong in one way, to see that the suite notices.
// Knows the Backend interface and the reference. Is no part of the package.

import { type Backend, Device, isFloat, type Kernels, ReferenceBackend, type View } from "@diffmamba/tensor";

type AnyKernel = (...args: unknown[]) => void;

export function isView(value: unknown): value is View {
  return typeof value === "object" && value !== null && "buffer" in value && "strides" in value;
}

/** A device on the reference with the kernels that `change` puts in the place of some. */
export function deviceWith(change: (kernels: Kernels) => Partial<Kernels>): Device {
  const inner = new ReferenceBackend({ poison: true });
  const backend: Backend = {
    name: "broken",
    device: inner.device,
    dtypes: inner.dtypes,
    holdsData: true,
    kernels: { ...inner.kernels, ...change(inner.kernels) },
    allocate: (bytes) => inner.allocate(bytes),
    free: (buffer) => inner.free(buffer),
    write: (buffer, offset, bytes) => inner.write(buffer, offset, bytes),
    read: (buffer, offset, length) => inner.read(buffer, offset, length),
    synchronize: () => inner.synchronize(),
    heldBytes: () => inner.heldBytes(),
    dispose: () => inner.dispose(),
  };
  return new Device(backend);
}

/** A device whose kernel `name` is wrapped: `wrong` gets the right kernel, and the arguments of each call. */
export function deviceWhere(
  name: keyof Kernels,
  wrong: (right: AnyKernel, args: unknown[], kernels: Kernels) => void,
): Device {
  return deviceWith((kernels) => ({
    [name]: (...args: unknown[]) => wrong(kernels[name] as unknown as AnyKernel, args, kernels),
  }));
}

/** Changes every element of a view by a thousandth or, of integers, by one. */
export function disturb(view: View, kernels: Kernels): void {
  if (view.shape.includes(0)) return;
  const memory = new ReferenceBackend();
  const constant = (value: number): View => {
    const scalar: View = { buffer: memory.allocate(8), dtype: view.dtype, shape: [], strides: [], offset: 0 };
    kernels.fill(scalar, value);
    return { ...scalar, shape: view.shape, strides: view.shape.map(() => 0) };
  };
  if (isFloat(view.dtype)) kernels.binary("mul", view, constant(1.001), view);
  kernels.binary("add", view, constant(isFloat(view.dtype) ? 1e-3 : 1), view);
}
