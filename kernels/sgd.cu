// One step of stochastic gradient descent, in place, for n groups of V numbers. See minidl/ops/sgd.py.
#include "minidl.cuh"

template <typename real, int V>
__global__ void sgd_paper(real* __restrict__ value, const real* __restrict__ grad, real* __restrict__ velocity,
                          wide<real> lr, wide<real> momentum, wide<real> weight_decay, bool nesterov, long long n) {
    EACH(i, n) {
        Pack<real, V> values = load<real, V>(value + i * V), velocities = load<real, V>(velocity + i * V);
        Pack<real, V> grads = load<real, V>(grad + i * V);
#pragma unroll
        for (int v = 0; v < V; v++) {
            auto now = widen(values.at[v]);
            auto descent = widen(grads.at[v]) + product(weight_decay, now);
            auto moving = product(momentum, widen(velocities.at[v])) - product(lr, descent);
            velocities.at[v] = real(moving);
            values.at[v] = real(now + (nesterov ? product(momentum, moving) - product(lr, descent) : moving));
        }
        store(velocity + i * V, velocities);
        store(value + i * V, values);
    }
}

template <typename real, int V>
__global__ void sgd_torch(real* __restrict__ value, const real* __restrict__ grad, real* __restrict__ velocity,
                          wide<real> lr, wide<real> momentum, wide<real> weight_decay, bool nesterov, long long n) {
    EACH(i, n) {
        Pack<real, V> values = load<real, V>(value + i * V), velocities = load<real, V>(velocity + i * V);
        Pack<real, V> grads = load<real, V>(grad + i * V);
#pragma unroll
        for (int v = 0; v < V; v++) {
            auto now = widen(values.at[v]);
            auto descent = widen(grads.at[v]) + product(weight_decay, now);
            auto moving = product(momentum, widen(velocities.at[v])) + descent;
            velocities.at[v] = real(moving);
            values.at[v] = real(now - product(lr, nesterov ? product(momentum, moving) + descent : moving));
        }
        store(velocity + i * V, velocities);
        store(value + i * V, values);
    }
}
