// Batch normalisation. See minidl/ops/batch_norm2d.py and kernels/channels.cuh. Each kernel reads its arrays once.
// mean, rest, var and inv_std are in float32 where x is of half precision, as running statistics are.
#include "minidl.cuh"
#include "channels.cuh"

// x (rows, C) → partials (shares, 2, C): Σ d and Σ d², where d = x − x₀ and x₀ is the channel's first number. In
// float64 one pass is then enough: var = Σ d²/m − (Σ d/m)² cancels little, as x₀ is itself one of the m numbers, and so
// the second term at most m times var; and nothing at all where a channel is constant.
template <typename real, int V>
__global__ void batch_sums(const real* __restrict__ x, double* __restrict__ partials, long long rows, int C) {
    int c = first_channel(V);
    Pack<wide<real>, V> origin = {};
    if (c < C) origin = load_wide<V>(x + c);
    sum_shares<2, V>(partials, rows, C, [&](long long i, double (&sums)[2][V]) {
        Pack<real, V> seen = load<real, V>(x + i);
#pragma unroll
        for (int v = 0; v < V; v++) {
            double d = (double)widen(seen.at[v]) - (double)origin.at[v];
            sums[0][v] += d, sums[1][v] += d * d;
        }
    });
}

// partials (shares, 2, C) and x → mean, rest, var (C,)
template <typename real>
__global__ void batch_statistics(const double* __restrict__ partials, const real* __restrict__ x,
                                 wide<real>* __restrict__ mean, wide<real>* __restrict__ rest,
                                 wide<real>* __restrict__ var, int shares, long long rows, int C) {
    add_shares<2>(partials, shares, C, [&](int c, const double (&sums)[2]) {
        double origin = widen(x[c]), offset = sums[0] / rows;
        mean[c] = wide<real>(origin + offset);
        rest[c] = wide<real>(origin - mean[c] + offset);
        var[c] = wide<real>(sums[1] / rows - offset * offset);
    });
}

// x (rows, C), the others (C,) → y (rows, C)
template <typename real, int V>
__global__ void batch_norm2d(const real* __restrict__ x, const wide<real>* __restrict__ mean,
                             const wide<real>* __restrict__ rest, const wide<real>* __restrict__ inv_std,
                             const real* __restrict__ gamma, const real* __restrict__ beta, real* __restrict__ y,
                             long long rows, int C) {
    int c = first_channel(V);
    if (c >= C) return;
    auto m = load_wide<V>(mean + c), r = load_wide<V>(rest + c), b = load_wide<V>(beta + c);
    auto scale = load_wide<V>(inv_std + c), g = load_wide<V>(gamma + c);
#pragma unroll
    for (int v = 0; v < V; v++) scale.at[v] *= g.at[v];
    each_row(rows, C, c, [&](long long i) {
        Pack<real, V> a = load<real, V>(x + i);
#pragma unroll
        for (int v = 0; v < V; v++)
            a.at[v] = real((widen(a.at[v]) - m.at[v] - r.at[v]) * scale.at[v] + b.at[v]);
        store(y + i, a);
    });
}

// dy and x (rows, C), the others (C,) → partials (shares, 2, C) of dgamma and dbeta
template <typename real, int V>
__global__ void gradient_sums(const real* __restrict__ dy, const real* __restrict__ x,
                              const wide<real>* __restrict__ mean, const wide<real>* __restrict__ rest,
                              const wide<real>* __restrict__ inv_std, double* __restrict__ partials,
                              long long rows, int C) {
    int c = first_channel(V);
    Pack<wide<real>, V> m = {}, r = {}, s = {};
    if (c < C) m = load_wide<V>(mean + c), r = load_wide<V>(rest + c), s = load_wide<V>(inv_std + c);
    sum_shares<2, V>(partials, rows, C, [&](long long i, double (&sums)[2][V]) {
        Pack<real, V> given = load<real, V>(dy + i), a = load<real, V>(x + i);
#pragma unroll
        for (int v = 0; v < V; v++) {
            double term = widen(given.at[v]);
            sums[0][v] += term * ((widen(a.at[v]) - m.at[v] - r.at[v]) * s.at[v]), sums[1][v] += term;
        }
    });
}

// partials (shares, 2, C) → dgamma and dbeta (C,)
template <typename real>
__global__ void parameter_gradients(const double* __restrict__ partials, real* __restrict__ dgamma,
                                    real* __restrict__ dbeta, int shares, int C) {
    add_shares<2>(partials, shares, C, [&](int c, const double (&sums)[2]) {
        dgamma[c] = real(sums[0]), dbeta[c] = real(sums[1]);
    });
}

// dy and x (rows, C), the others (C,) → dx (rows, C)
template <typename real, int V>
__global__ void input_gradient(const real* __restrict__ dy, const real* __restrict__ x,
                               const wide<real>* __restrict__ mean, const wide<real>* __restrict__ rest,
                               const wide<real>* __restrict__ inv_std, const real* __restrict__ gamma,
                               const real* __restrict__ dgamma, const real* __restrict__ dbeta, real* __restrict__ dx,
                               long long rows, int C) {
    int c = first_channel(V);
    if (c >= C) return;
    auto m = load_wide<V>(mean + c), r = load_wide<V>(rest + c), s = load_wide<V>(inv_std + c);
    auto scale = load_wide<V>(gamma + c);
    auto slope = load_wide<V>(dgamma + c), shift = load_wide<V>(dbeta + c);
#pragma unroll
    for (int v = 0; v < V; v++)
        scale.at[v] *= s.at[v], slope.at[v] /= wide<real>(rows), shift.at[v] /= wide<real>(rows);
    each_row(rows, C, c, [&](long long i) {
        Pack<real, V> given = load<real, V>(dy + i), a = load<real, V>(x + i);
#pragma unroll
        for (int v = 0; v < V; v++) {
            auto normalised = (widen(a.at[v]) - m.at[v] - r.at[v]) * s.at[v];
            a.at[v] = real(scale.at[v] * (widen(given.at[v]) - shift.at[v] - normalised * slope.at[v]));
        }
        store(dx + i, a);
    });
}
