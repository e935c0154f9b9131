// Sums over everything but the channels. See minidl/ops/channel_sum.py and kernels/channels.cuh.
#include "minidl.cuh"
#include "channels.cuh"

// x (rows, C) → partials (shares, C)
template <typename real, int V>
__global__ void channel_sum(const real* __restrict__ x, double* __restrict__ partials, long long rows, int C) {
    sum_shares<1, V>(partials, rows, C, [&](long long i, double (&sums)[1][V]) {
        Pack<real, V> a = load<real, V>(x + i);
#pragma unroll
        for (int v = 0; v < V; v++) sums[0][v] += widen(a.at[v]);
    });
}

// x and y (rows, C) → partials (shares, C)
template <typename real, int V>
__global__ void channel_dot(const real* __restrict__ x, const real* __restrict__ y, double* __restrict__ partials,
                            long long rows, int C) {
    sum_shares<1, V>(partials, rows, C, [&](long long i, double (&sums)[1][V]) {
        Pack<real, V> a = load<real, V>(x + i), b = load<real, V>(y + i);
#pragma unroll
        for (int v = 0; v < V; v++) sums[0][v] += widen(a.at[v]) * widen(b.at[v]);
    });
}

// partials (shares, C) → total (C,)
template <typename real>
__global__ void channel_total(const double* __restrict__ partials, real* __restrict__ total, int shares, int C) {
    add_shares<1>(partials, shares, C, [&](int c, const double (&sums)[1]) { total[c] = real(sums[0]); });
}
