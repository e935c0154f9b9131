// One step of Adam with decoupled weight decay, in place, for n groups of V numbers. See minidl/ops/adamw.py.
#include "minidl.cuh"

// decay = 1 − lr·weight_decay,    rate = lr / (1 − β₁ᵗ),    share = 1 − β₂ᵗ
template <typename real, int V>
__global__ void adamw(real* __restrict__ value, const real* __restrict__ grad, real* __restrict__ mean,
                      real* __restrict__ square, wide<real> beta1, wide<real> one_minus_beta1, wide<real> beta2,
                      wide<real> one_minus_beta2, wide<real> decay, wide<real> rate, wide<real> share,
                      wide<real> eps, long long n) {
    EACH(i, n) {
        Pack<real, V> values = load<real, V>(value + i * V), grads = load<real, V>(grad + i * V);
        Pack<real, V> means = load<real, V>(mean + i * V), squares = load<real, V>(square + i * V);
#pragma unroll
        for (int v = 0; v < V; v++) {
            auto g = widen(grads.at[v]);
            auto m = product(beta1, widen(means.at[v])) + product(one_minus_beta1, g);
            auto s = product(beta2, widen(squares.at[v])) + product(product(one_minus_beta2, g), g);
            means.at[v] = real(m);
            squares.at[v] = real(s);
            wide<real> root = sqrt(s / share);
            values.at[v] = real(product(widen(values.at[v]), decay) - product(rate, m) / (root + eps));
        }
        store(mean + i * V, means);
        store(square + i * V, squares);
        store(value + i * V, values);
    }
}
