// Layer: reference backend. Its factory.

import { Device, type DeviceOptions } from "../device.js";
import { ReferenceBackend, type ReferenceOptions } from "./backend.js";

/** A device on the reference backend: plain TypeScript, one thread, every type, f64 included. */
export function reference(options: ReferenceOptions & DeviceOptions = {}): Device {
  return new Device(new ReferenceBackend(options), options);
}
