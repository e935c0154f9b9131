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

// Calls body(i, o) for the taps i, along one axis, through which windows o < outputs see a place, counted from the
// padding's beginning: o·S + i·D = at. Divides once, as that takes as long as some 20 sums.
template <typename Body>
__device__ __forceinline__ void each_window(int at, int outputs, int K, int S, int D, Body body) {
    int o = at / S, rest = at % S;
    for (int i = 0; i < K && o >= 0; i++) {
        if (rest == 0 && o < outputs) body(i, o);
        for (rest -= D; rest < 0; rest += S) o--;
    }
}

// Where a thread of the grid `rows` (kernels/cuda.py) stands in images of H rows: at V channels, from c on, of pixel
// (h, w). Beyond the end of a row, w is too large.
struct Place {
    int n, h, w, c;
};
__device__ __forceinline__ Place place(int H, int C, int V) {
    int row = blockIdx.x, at = blockIdx.y * blockDim.x + threadIdx.x;
    return {row / H, row % H, at / (C / V), at % (C / V) * V};
}

// Memory of a block: SHARED(float, tile, [32][33]) declares `float tile[32][33]`; DYNAMIC_SHARED(float, sums) declares
// `float* sums`, as long as the launch says.
#ifndef CUDA_SHIM
#define SHARED(type, name, dimensions) __shared__ type name dimensions
#define DYNAMIC_SHARED(type, name)                      \
    extern __shared__ __align__(16) char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif
