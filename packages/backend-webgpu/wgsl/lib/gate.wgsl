// SiLU of items and its slope. e^x of the device is good enough here: its relative error of 3 + 2|x| units in the last place
// meets factors that fall with e^-|x|.

#include items

fn sigmoid(x: item) -> item {
  let e = exp(-abs(x));
  return select(item(1.0), e, x < item(0.0)) / (item(1.0) + e);
}

// x, but no less than where the sigmoid vanishes; NaN stays, which `max` may lose and some drivers' `exp` does.
fn bounded(x: item) -> item {
  return select(x, item(-88.0), x < item(-88.0));
}

// x sigmoid(x); 0 at minus infinity.
fn silu(x: item) -> item {
  return bounded(x) * sigmoid(x);
}

// d silu(x) / dx
fn silu_slope(x: item) -> item {
  let s = sigmoid(x);
  return s * (item(1.0) + bounded(x) * (item(1.0) - s));
}
