// Rows of C numbers, each summed by a warp of its own, or by a block of several.
//
// Thread threadIdx.x takes every blockDim.x-th group of V neighbours, so that a row's sum depends on the number of
// threads, but never on their timing. Where a kernel sweeps over a row again, it finds it in the cache.
#include "minidl.cuh"

__device__ __forceinline__ long long row() { return blockIdx.x * (long long)blockDim.y + threadIdx.y; }

#define ALONG(c, C, V) for (int c = threadIdx.x * V; c < (C); c += blockDim.x * V)

struct Sum {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct Maximum {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return max(a, b); }
};

// What the threads of a row hold, combined in a fixed order: all of them get the same bits.
template <typename Combine, typename T> __device__ __forceinline__ T together(T value) {
    Combine combine;
#pragma unroll
    for (int lane = 16; lane; lane /= 2) value = combine(value, __shfl_xor_sync(~0u, value, lane));
    if (blockDim.x == 32) return value;
    SHARED(T, warps, [32]);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = warps[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) value = combine(value, warps[warp]);
    __syncthreads();  // the next call writes there
    return value;
}

// m = max x and Σ exp(x − m) of a row
template <int V, typename real>
__device__ __forceinline__ void exponentials(const real* x, int C, wide<real>& m, wide<real>& sum) {
    m = -INFINITY, sum = 0;
    ALONG(c, C, V) {
        Pack<real, V> seen = load<real, V>(x + c);
#pragma unroll
        for (int v = 0; v < V; v++) m = max(m, widen(seen.at[v]));
    }
    m = together<Maximum>(m);
    ALONG(c, C, V) {
        Pack<real, V> seen = load<real, V>(x + c);
#pragma unroll
        for (int v = 0; v < V; v++) sum += exp(widen(seen.at[v]) - m);
    }
    sum = together<Sum>(sum);
}
