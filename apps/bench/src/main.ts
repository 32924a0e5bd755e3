// Layer: apps/bench. The program's entry; it does nothing yet.
export {};
