// For the split product: x scaled by a power of two, at which its largest finite magnitude lies between 2^14 and 2^15, as the sum of two
// f16, high and low. What is not finite stays so in the high one, and the low one is zero.
// x is (batch, lines, vectors), its lines a pitch apart, along k or, with `turned`, one for each k. It becomes blocks of 16 by 16 along k,
// beyond x with zeros: 16 lines of high ones along k, 32 bytes each, then 16 of low ones; the blocks of 16 lines side by side.
#include grid
#include workgroup-sum

alias summand = i32;
const team = 256;
fn join(a: i32, b: i32) -> i32 { return max(a, b); }

const infinity = vec4i(0x7f800000);

struct Halves { high: vec2u, low: vec2u }

fn halves(x: vec4f, scale: f32) -> Halves {
  let bits = bitcast<vec4i>(x);
  let size = bits & vec4i(0x7fffffff);
  let finite = size < infinity;
  let v = select(vec4f(), x * scale, finite);
  // Rounded to the 11 bits of an f16 by its bits: of a number that is narrowed and widened again compilers may make what it was.
  let high = bitcast<vec4f>((bitcast<vec4u>(v) + vec4u(0x1000u)) & vec4u(0xffffe000u));
  let low = v - high;
  // The bits of an infinity, or of what is no number, with its sign.
  let other = ((bitcast<vec4u>(x) >> vec4u(16u)) & vec4u(0x8000u)) | select(vec4u(0x7c00u), vec4u(0x7e00u), size > infinity);
  let odd = select(other, vec4u(), finite);
  return Halves(
    vec2u(pack2x16float(high.xy), pack2x16float(high.zw)) | vec2u(odd.x | (odd.y << 16u), odd.z | (odd.w << 16u)),
    vec2u(pack2x16float(low.xy), pack2x16float(low.zw)),
  );
}

#if turned
// A word of both halves for each element, (128 elements, 16 lines and one that keeps elements in different banks).
var<workgroup> words: array<u32, 2176>;

fn put(at: u32, high: u32, low: u32) {
  words[at] = (high & 0xffffu) | (low << 16u);
  words[at + 17u] = (high >> 16u) | (low & 0xffff0000u);
}

fn high_pair(at: u32) -> u32 {
  return (words[at] & 0xffffu) | (words[at + 1u] << 16u);
}

fn low_pair(at: u32) -> u32 {
  return (words[at] >> 16u) | (words[at + 1u] & 0xffff0000u);
}
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  // A workgroup takes 16 lines of eight blocks, and a thread eight elements of a line.
  let id = linear_group(group, groups);
  let across = (u.blocks_across + 7u) / 8u;
  let down = id / across;
  let batch = down / u.blocks_down;
  let first = (id - down * across) * 8u;
  let line = (down - batch * u.blocks_down) * 16u + lane / 16u;
  let vector = first * 4u + lane % 16u * 2u;
  var left = vec4f();
  var right = vec4f();
  if (batch < u.batch && line < u.lines) {
    let at = u.x_at + batch * u.x_batch + line * u.x_pitch + vector;
    if (vector < u.vectors) { left = $x[at]; }
    if (vector + 1u < u.vectors) { right = $x[at + 1u]; }
  }
  var most = 0;
  for (var part = lane; part < PARTS; part += 256u) { most = max(most, $largest[u.largest_at + part]); }
  most = join_team(most, lane);
  // The exponent, so far from the smallest that the scale's inverse is a number too.
  let exponent = max(most >> 23u, 15);
  if (id == 0u && lane == 0u) { $exponent[u.exponent_at] = exponent; }
  let scale = bitcast<f32>((268 - exponent) << 23u);
  let a = halves(left, scale);
  let b = halves(right, scale);
#if turned
  let to = lane % 16u * 136u + lane / 16u;
  put(to, a.high.x, a.low.x);
  put(to + 34u, a.high.y, a.low.y);
  put(to + 68u, b.high.x, b.low.x);
  put(to + 102u, b.high.y, b.low.y);
  workgroupBarrier();
  let block = first + lane / 32u;
  if (batch < u.batch && block < u.blocks_across) {
    let at = lane / 2u * 17u + lane % 2u * 8u;
    let high = vec4u(high_pair(at), high_pair(at + 2u), high_pair(at + 4u), high_pair(at + 6u));
    let low = vec4u(low_pair(at), low_pair(at + 2u), low_pair(at + 4u), low_pair(at + 6u));
    let place = (batch * u.blocks_across + block) * u.blocks_down + down - batch * u.blocks_down;
    let out = u.out_at + place * 64u + lane % 32u;
    $out[out] = high;
    $out[out + 32u] = low;
  }
#else
  let block = first + lane % 16u / 2u;
  if (batch < u.batch && block < u.blocks_across) {
    let out = u.out_at + (down * u.blocks_across + block) * 64u + lane / 16u * 2u + lane % 2u;
    $out[out] = vec4u(a.high, b.high);
    $out[out + 32u] = vec4u(a.low, b.low);
  }
#endif
}
