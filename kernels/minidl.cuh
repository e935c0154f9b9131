// What all kernels share: dtypes, vectors of them, the loop over all numbers, the geometry of windows, shared memory.
//
// A kernel is a template over `real`, the dtype of its arrays: float, double, __half or __nv_bfloat16. It computes in
// wide<real>, which is double for double and float for the others.
#pragma once
#ifndef CUDA_SHIM
#include <cuda_bf16.h>
#include <cuda_fp16.h>
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
#ifndef INFINITY  // NVRTC has no math.h
#define INFINITY __int_as_float(0x7f800000)
#endif
#endif

template <typename real> struct Wide { using type = float; };
template <> struct Wide<double> { using type = double; };
template <typename real> using wide = typename Wide<real>::type;

template <typename real> __device__ __forceinline__ wide<real> widen(real x) { return static_cast<wide<real>>(x); }

// a·b, rounded: a compiler would fuse it with a sum that follows, to other bits than those of array code.
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double product(double a, double b) { return __dmul_rn(a, b); }

// V neighbouring numbers, which one instruction reads or writes where they are 16 bytes.
template <typename real, int V> struct alignas(V * sizeof(real)) Pack { real at[V]; };

template <typename real, int V> __device__ __forceinline__ Pack<real, V> load(const real* p) {
    return *reinterpret_cast<const Pack<real, V>*>(p);
}

template <typename real, int V> __device__ __forceinline__ void store(real* p, const Pack<real, V>& values) {
    *reinterpret_cast<Pack<real, V>*>(p) = values;
}

template <typename real, int V> __device__ __forceinline__ Pack<wide<real>, V> widened(const Pack<real, V>& values) {
    Pack<wide<real>, V> result;
#pragma unroll
    for (int v = 0; v < V; v++) result.at[v] = widen(values.at[v]);
    return result;
}

constexpr int THREADS = 256;  // of a block at most, as in kernels/cuda.py

// Each thread of a one-dimensional grid takes every (number of threads)-th i below n.
#define EACH(i, n)                                                                     \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (n); \
         i += (long long)gridDim.x * blockDim.x)

// A window over images (see minidl/window.py): tap (i, j) of output (oh, ow) reads pixel
// (oh·SH + i·DH − top, ow·SW + j·DW − left).
struct Geometry {
    int H, W, OH, OW, KH, KW, SH, SW, DH, DW, top, left;
};

// Whether a place lies in 0 … n − 1.
__device__ __forceinline__ bool inside(int at, int n) { return unsigned(at) < unsigned(n); }

// a / b for a ≥ 0, at once where b is 1, as dilations mostly are: a division takes as long as some 20 sums.
__device__ __forceinline__ int quotient(unsigned a, unsigned b) { return b == 1 ? a : a / b; }

constexpr int TURNS = 8;  // of a thread along a row of pixels at most, as in kernels/cuda.py

// Calls body(n, h, w, c) for V channels, from c on, of every pixel that falls to this thread. The grid is that of
// `rows` in kernels/cuda.py, and blockIdx.x = n·H + h.
template <typename Body> __device__ __forceinline__ void each_pixel(int H, int W, int C, int V, Body body) {
    int n = blockIdx.x / unsigned(H), h = blockIdx.x - n * H, c = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (c >= C) return;
    for (int w = blockIdx.z * blockDim.y + threadIdx.y; w < W; w += gridDim.z * blockDim.y) body(n, h, w, c);
}

// Memory of a block: SHARED(float, tile, [32][33]) declares `float tile[32][33]`; DYNAMIC_SHARED(float, sums) declares
// `float* sums`, as long as the launch says.
#ifndef CUDA_SHIM
#define SHARED(type, name, dimensions) __shared__ type name dimensions
#define DYNAMIC_SHARED(type, name)                      \
    extern __shared__ __align__(16) char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif
