// A product of 64 x 64 by a workgroup of 64 threads, eight by eight numbers each, in steps of 16 along k: `left` holds 64 rows and
// `right` 64 columns of a step, four to a vector, and every thread adds up what is its own in `sums`: for rows 4 row_slot and
// 32 + 4 row_slot on, four each, columns 4 column_slot and 32 + 4 column_slot on.

const threads = 64u;
const depth = 16u;
// Vectors of a step's k: an odd number keeps those of a column in different banks.
const pitch = 17u;

var<workgroup> left: array<array<vec4f, pitch>, depth>;
var<workgroup> right: array<array<vec4f, pitch>, depth>;

alias Sums = array<vec4f, 16>;

// Neighbours share columns and every second two share rows: then fewer words are read for all threads at once.
fn row_slot_of(lane: u32) -> u32 {
  return lane / 32u * 4u + ((lane & 1u) | (((lane >> 4u) & 1u) << 1u));
}

fn column_slot_of(lane: u32) -> u32 {
  return (lane >> 1u) & 7u;
}

// The row of sums[2 r] and sums[2 r + 1].
fn row_of(row_slot: u32, r: u32) -> u32 {
  return (r / 4u) * 32u + 4u * row_slot + r % 4u;
}

// The slot of four columns of sums[2 r + half].
fn slot_of(column_slot: u32, half: u32) -> u32 {
  return column_slot + 8u * half;
}

// Adds a step's products.
fn multiply(sums: ptr<function, Sums>, row_slot: u32, column_slot: u32) {
#repeat k 16
  let a = left[@k][row_slot];
  let c = left[@k][row_slot + 8u];
  let b = right[@k][column_slot];
  let d = right[@k][column_slot + 8u];
  (*sums)[0] = fma(vec4f(a.x), b, (*sums)[0]);
  (*sums)[1] = fma(vec4f(a.x), d, (*sums)[1]);
  (*sums)[2] = fma(vec4f(a.y), b, (*sums)[2]);
  (*sums)[3] = fma(vec4f(a.y), d, (*sums)[3]);
  (*sums)[4] = fma(vec4f(a.z), b, (*sums)[4]);
  (*sums)[5] = fma(vec4f(a.z), d, (*sums)[5]);
  (*sums)[6] = fma(vec4f(a.w), b, (*sums)[6]);
  (*sums)[7] = fma(vec4f(a.w), d, (*sums)[7]);
  (*sums)[8] = fma(vec4f(c.x), b, (*sums)[8]);
  (*sums)[9] = fma(vec4f(c.x), d, (*sums)[9]);
  (*sums)[10] = fma(vec4f(c.y), b, (*sums)[10]);
  (*sums)[11] = fma(vec4f(c.y), d, (*sums)[11]);
  (*sums)[12] = fma(vec4f(c.z), b, (*sums)[12]);
  (*sums)[13] = fma(vec4f(c.z), d, (*sums)[13]);
  (*sums)[14] = fma(vec4f(c.w), b, (*sums)[14]);
  (*sums)[15] = fma(vec4f(c.w), d, (*sums)[15]);
#endrepeat
}

// Where a thread that brings a square of four by four puts it: rows 4 (lane / 4) on, of k 4 (lane % 4) on.
fn put_left(lane: u32, a: vec4f, b: vec4f, c: vec4f, d: vec4f) {
  let k = (lane % 4u) * 4u;
  left[k][lane / 4u] = vec4f(a.x, b.x, c.x, d.x);
  left[k + 1u][lane / 4u] = vec4f(a.y, b.y, c.y, d.y);
  left[k + 2u][lane / 4u] = vec4f(a.z, b.z, c.z, d.z);
  left[k + 3u][lane / 4u] = vec4f(a.w, b.w, c.w, d.w);
}

fn put_right(lane: u32, a: vec4f, b: vec4f, c: vec4f, d: vec4f) {
  let k = (lane % 4u) * 4u;
  right[k][lane / 4u] = vec4f(a.x, b.x, c.x, d.x);
  right[k + 1u][lane / 4u] = vec4f(a.y, b.y, c.y, d.y);
  right[k + 2u][lane / 4u] = vec4f(a.z, b.z, c.z, d.z);
  right[k + 3u][lane / 4u] = vec4f(a.w, b.w, c.w, d.w);
}
