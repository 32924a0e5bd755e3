// The unit in which rows are read and written: four neighbouring elements where sizes, pitches and offsets allow it (`fours`),
// else one element.

#if fours
alias item = vec4f;
fn total(x: item) -> f32 { return (x.x + x.y) + (x.z + x.w); }
fn greatest(x: item) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
#else
alias item = f32;
fn total(x: item) -> f32 { return x; }
fn greatest(x: item) -> f32 { return x; }
#endif
