// The sum of the values, of type @@, of all threads before one of 256, and of all of them (Hillis and Steele 1986).
// To be called by the whole workgroup.

var<workgroup> shared_@@: array<@@, 512>;

struct Scan_@@ { before: @@, all: @@ }

fn scan_@@(value: @@, lane: u32) -> Scan_@@ {
  // Two halves of the memory take turns: one is read while the other is written.
  var old = 0u;
  var sum = value;
  workgroupBarrier();
  shared_@@[lane] = sum;
  for (var distance = 1u; distance < 256u; distance *= 2u) {
    workgroupBarrier();
    if (lane >= distance) {
      sum += shared_@@[old + lane - distance];
    }
    old = 256u - old;
    shared_@@[old + lane] = sum;
  }
  workgroupBarrier();
  return Scan_@@(select(shared_@@[old + max(lane, 1u) - 1u], @@(), lane == 0u), shared_@@[old + 255u]);
}
