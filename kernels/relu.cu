// The gradient of the rectified linear unit. See minidl/ops/relu.py.
#include "minidl.cuh"

// dx = dy where y > 0, else 0, for n groups of V numbers
template <typename real, int V>
__global__ void relu_gradient(const real* __restrict__ dy, const real* __restrict__ y, real* __restrict__ dx,
                              long long n) {
    EACH(i, n) {
        Pack<real, V> given = load<real, V>(dy + i * V), seen = load<real, V>(y + i * V);
#pragma unroll
        for (int v = 0; v < V; v++)
            if (!(widen(seen.at[v]) > 0)) given.at[v] = real(0.f);
        store(dx + i * V, given);
    }
}
