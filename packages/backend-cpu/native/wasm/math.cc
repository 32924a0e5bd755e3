// The functions of numbers that the machine has no instruction for. Knows doubles.

#include <cmath>

/// The page gives these, from the engine's Math (src/wasm/imports.ts).
#define FROM_PAGE(name) extern "C" __attribute__((import_module("math"), import_name(#name)))
FROM_PAGE(exp) double page_exp(double x);
FROM_PAGE(log) double page_log(double x);
FROM_PAGE(log1p) double page_log1p(double x);
FROM_PAGE(tanh) double page_tanh(double x);
FROM_PAGE(pow) double page_pow(double base, double exponent);
FROM_PAGE(fmod) double page_fmod(double x, double y);

namespace std {

double exp(double x) { return page_exp(x); }
double log(double x) { return page_log(x); }
double log1p(double x) { return page_log1p(x); }
double tanh(double x) { return page_tanh(x); }
double pow(double base, double exponent) { return page_pow(base, exponent); }
double fmod(double x, double y) { return page_fmod(x, y); }

/// 2 / sqrt(pi) e^(-x^2) times the sum over n of 2^n x^(2n+1) / (1 3 5 .. (2n+1)), which has no terms that cancel
/// (Abramowitz and Stegun 7.1.6).
float erf(float x) {
  const double z = x;
  if (z > 4 || z < -4) return z < 0 ? -1.0f : 1.0f;
  double term = z, total = z;
  for (int n = 1; fabs(term) > 1e-10 * fabs(total); n++) {
    term *= 2 * z * z / (2 * n + 1);
    total += term;
  }
  return static_cast<float>(1.1283791670955126 * exp(-z * z) * total);
}

}  // namespace std
