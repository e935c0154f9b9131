// Softmax and its logarithm over rows of C numbers, and their gradients. See minidl/ops/softmax.py and row.cuh.
#include "row.cuh"

// x (N, C) → y (N, C)
template <typename real, int V>
__global__ void softmax(const real* __restrict__ x, real* __restrict__ y, long long N, int C) {
    if (row() >= N) return;
    x += row() * C, y += row() * C;
    wide<real> m, sum;
    exponentials<V>(x, C, m, sum);
    ALONG(c, C, V) {
        Pack<real, V> values = load<real, V>(x + c);
#pragma unroll
        for (int v = 0; v < V; v++) values.at[v] = real(wide<real>(exp(widen(values.at[v]) - m)) / sum);
        store(y + c, values);
    }
}

// dy, y (N, C) → dx (N, C)
template <typename real, int V>
__global__ void softmax_gradient(const real* __restrict__ dy, const real* __restrict__ y, real* __restrict__ dx,
                                 long long N, int C) {
    if (row() >= N) return;
    dy += row() * C, y += row() * C, dx += row() * C;
    wide<real> sum = 0;
    ALONG(c, C, V) {
        Pack<real, V> given = load<real, V>(dy + c), seen = load<real, V>(y + c);
#pragma unroll
        for (int v = 0; v < V; v++) sum += widen(given.at[v]) * widen(seen.at[v]);
    }
    sum = together<Sum>(sum);
    ALONG(c, C, V) {
        Pack<real, V> given = load<real, V>(dy + c), seen = load<real, V>(y + c);
#pragma unroll
        for (int v = 0; v < V; v++) given.at[v] = real(widen(seen.at[v]) * (widen(given.at[v]) - sum));
        store(dx + c, given);
    }
}

// x (N, C) → y (N, C)
template <typename real, int V>
__global__ void log_softmax(const real* __restrict__ x, real* __restrict__ y, long long N, int C) {
    if (row() >= N) return;
    x += row() * C, y += row() * C;
    wide<real> m, sum;
    exponentials<V>(x, C, m, sum);
    wide<real> log_sum = log(sum);
    ALONG(c, C, V) {
        Pack<real, V> values = load<real, V>(x + c);
#pragma unroll
        for (int v = 0; v < V; v++) values.at[v] = real(widen(values.at[v]) - m - log_sum);
        store(y + c, values);
    }
}

// dy, y (N, C) → dx (N, C)
template <typename real, int V>
__global__ void log_softmax_gradient(const real* __restrict__ dy, const real* __restrict__ y, real* __restrict__ dx,
                                     long long N, int C) {
    if (row() >= N) return;
    dy += row() * C, y += row() * C, dx += row() * C;
    wide<real> sum = 0;
    ALONG(c, C, V) {
        Pack<real, V> given = load<real, V>(dy + c);
#pragma unroll
        for (int v = 0; v < V; v++) sum += widen(given.at[v]);
    }
    sum = together<Sum>(sum);
    ALONG(c, C, V) {
        Pack<real, V> given = load<real, V>(dy + c), seen = load<real, V>(y + c);
#pragma unroll
        for (int v = 0; v < V; v++)
            given.at[v] = real(widen(given.at[v]) - wide<real>(exp(widen(seen.at[v]))) * sum);
        store(dx + c, given);
    }
}
