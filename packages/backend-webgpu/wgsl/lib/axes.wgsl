// Where element `index` of up to six axes lies in four operands at once, x to w. The axes count from the innermost, @@_size_0;
// the outermost needs no size. Each operand steps by @@_x_0 and so on along an axis.

fn @@_along(rest: ptr<function, u32>, size: u32, steps: vec4u) -> vec4u {
  let next = *rest / size;
  let index = *rest - next * size;
  *rest = next;
  return index * steps;
}

fn @@_places(index: u32) -> vec4u {
  var rest = index;
  var at = vec4u();
#if @@_axes_2
  at += @@_along(&rest, u.@@_size_0, vec4u(u.@@_x_0, u.@@_y_0, u.@@_z_0, u.@@_w_0));
#endif
#if @@_axes_3
  at += @@_along(&rest, u.@@_size_1, vec4u(u.@@_x_1, u.@@_y_1, u.@@_z_1, u.@@_w_1));
#endif
#if @@_axes_4
  at += @@_along(&rest, u.@@_size_2, vec4u(u.@@_x_2, u.@@_y_2, u.@@_z_2, u.@@_w_2));
#endif
#if @@_axes_5
  at += @@_along(&rest, u.@@_size_3, vec4u(u.@@_x_3, u.@@_y_3, u.@@_z_3, u.@@_w_3));
#endif
#if @@_axes_6
  at += @@_along(&rest, u.@@_size_4, vec4u(u.@@_x_4, u.@@_y_4, u.@@_z_4, u.@@_w_4));
#endif
  return at + rest * vec4u(u.@@_x, u.@@_y, u.@@_z, u.@@_w);
}
