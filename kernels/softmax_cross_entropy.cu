// The cross entropy between softmax and labels, and its gradient. See minidl/ops/softmax_cross_entropy.py and row.cuh.
// at_label is 1 − ε and everywhere ε/C, with ε the label smoothing.
#include "row.cuh"

// factor · log p, and 0 where the factor is 0: 0·∞ is 0 here
template <typename T> __device__ __forceinline__ T weighted(T factor, T log_p) {
    return factor != 0 ? factor * log_p : 0;
}

// logits (N, C), labels (N,), weight (C,) → losses (N,), log p (N, C)
template <typename real, int V>
__global__ void softmax_cross_entropy(const real* __restrict__ logits, const long long* __restrict__ labels,
                                      const real* __restrict__ weight, real* __restrict__ losses,
                                      real* __restrict__ log_p, wide<real> at_label, wide<real> everywhere,
                                      long long N, int C) {
    long long n = row();
    if (n >= N) return;
    logits += n * C, log_p += n * C;
    wide<real> m, sum, spread = 0;
    exponentials<V>(logits, C, m, sum);
    wide<real> log_sum = log(sum);
    ALONG(c, C, V) {
        Pack<real, V> values = load<real, V>(logits + c), weights = load<real, V>(weight + c);
#pragma unroll
        for (int v = 0; v < V; v++) {
            wide<real> value = widen(values.at[v]) - m - log_sum;
            spread += weighted(widen(weights.at[v]), value);
            values.at[v] = real(value);
        }
        store(log_p + c, values);
    }
    spread = together<Sum>(spread);
    if (threadIdx.x) return;
    wide<real> loss = 0;
    if (long long label = labels[n]; label >= 0) {
        loss = weighted(-at_label * widen(weight[label]), widen(logits[label]) - m - log_sum);
        loss -= weighted(everywhere, spread);
    }
    losses[n] = real(loss);
}

// dlosses (N,), log p (N, C), labels (N,), weight (C,) → dlogits (N, C)
template <typename real, int V>
__global__ void softmax_cross_entropy_gradient(const real* __restrict__ dlosses, const real* __restrict__ log_p,
                                               const long long* __restrict__ labels,
                                               const real* __restrict__ weight, real* __restrict__ dlogits,
                                               wide<real> at_label, wide<real> everywhere, long long N, int C) {
    long long n = row();
    if (n >= N) return;
    log_p += n * C, dlogits += n * C;
    long long label = labels[n];
    wide<real> dloss = label >= 0 ? widen(dlosses[n]) : 0, weights = 0;
    if (label >= 0) at_label *= widen(weight[label]);
    if (everywhere != 0) {
        ALONG(c, C, V) {
            Pack<real, V> seen = load<real, V>(weight + c);
#pragma unroll
            for (int v = 0; v < V; v++) weights += everywhere * widen(seen.at[v]);
        }
        weights = together<Sum>(weights);
    }
    ALONG(c, C, V) {
        Pack<real, V> values = load<real, V>(log_p + c), seen = load<real, V>(weight + c);
#pragma unroll
        for (int v = 0; v < V; v++) {
            wide<real> target = weighted(everywhere, widen(seen.at[v])) + (c + v == label ? at_label : 0);
            wide<real> p = exp(widen(values.at[v]));
            values.at[v] = real(dloss * (p * (at_label + weights) - target));
        }
        store(dlogits + c, values);
    }
}
