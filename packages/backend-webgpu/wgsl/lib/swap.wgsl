// Exchanges values of type @@ between lanes of a workgroup of 256 whose numbers differ in one bit, `apart`: through a subgroup where
// it holds both, else through the workgroup's memory. `run`: no subgroup of the device is smaller, and lanes that follow one another
// share one. To be called by the whole workgroup.

var<workgroup> swapped_@@: array<@@, 256>;

fn swap_@@(value: @@, apart: u32, lane: u32) -> @@ {
#if subgroups
  if (apart < run) {
    return subgroupShuffleXor(value, apart);
  }
#endif
  workgroupBarrier();
  swapped_@@[lane] = value;
  workgroupBarrier();
  return swapped_@@[lane ^ apart];
}
