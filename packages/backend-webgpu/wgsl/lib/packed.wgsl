// Elements smaller than a word: four bytes or two halves of each u32, the first in its lowest bits.

fn byte_of(word: u32, at: u32) -> u32 {
  return (word >> (8u * (at & 3u))) & 0xffu;
}

fn half_of(word: u32, at: u32) -> u32 {
  return (word >> (16u * (at & 1u))) & 0xffffu;
}

fn bytes_of(word: u32) -> vec4u {
  return (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(0xffu);
}

fn word_of_bytes(bytes: vec4u) -> u32 {
  let placed = (bytes & vec4u(0xffu)) << vec4u(0u, 8u, 16u, 24u);
  return placed.x | placed.y | placed.z | placed.w;
}

fn word_of_halves(low: u32, high: u32) -> u32 {
  return (low & 0xffffu) | (high << 16u);
}

// `fresh` in the lowest `bits` bits, from 1 to 32; `old` in the others.
fn keep_above(bits: u32, fresh: u32, old: u32) -> u32 {
  let mask = 0xffffffffu >> (32u - bits);
  return (fresh & mask) | (old & ~mask);
}
