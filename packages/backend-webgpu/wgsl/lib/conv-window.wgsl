// The `width` inputs that a token sees, `older` of them before it, oldest first, as a thread goes forward in time: all in registers.

#include conv-inputs
#include conv-reach

alias Window = array<item, width>;

// The window of the token before `first`, without its oldest input, which nothing needs.
fn window_before(b: u32, column: u32, first: u32) -> Window {
  var window: Window;
#repeat k older
  window[@k + 1u] = input_at(b, column, i32(first + @k) - i32(width - 1u));
#endrepeat
  return window;
}

fn shift(window: ptr<function, Window>, newest: item) {
#repeat k older
  (*window)[@k] = (*window)[@k + 1u];
#endrepeat
  (*window)[width - 1u] = newest;
}

// The inputs of the window that belong to the sequence of its token t, whose reach is `reach`; zeros for the others.
fn seen(window: Window, t: u32, reach: i32) -> Window {
#if HAS_reach
  var inputs = window;
#repeat k width
  inputs[@k] = select(item(0.0), inputs[@k], sees(i32(t), reach, i32(width - 1u - @k)));
#endrepeat
  return inputs;
#else
  return window;
#endif
}

fn weighted(inputs: Window, weights: Window, bias: item) -> item {
  var sum = bias;
#repeat k width
  sum += weights[@k] * inputs[@k];
#endrepeat
  return sum;
}
