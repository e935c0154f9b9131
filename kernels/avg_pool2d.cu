// Average pooling. See minidl/ops/avg_pool2d.py. A block takes part of a row of pixels, a thread V channels of a pixel.
#include "minidl.cuh"

// How many of the K taps start, start + D, … lie before `end`
__device__ __forceinline__ int taps_before(int end, int start, int K, int D) {
    return min(max((end - start + D - 1) / D, 0), K);
}

// How many taps of output (oh, ow) count, by rows and by columns: those at −above … H + below − 1, and at −before …
// W + after − 1. These four are the padding where that counts, else 0.
struct Counting {
    Geometry g;
    int above, below, before, after;
    __device__ __forceinline__ int rows(int oh) const {
        int start = oh * g.SH - g.top;
        return taps_before(g.H + below, start, g.KH, g.DH) - taps_before(-above, start, g.KH, g.DH);
    }
    __device__ __forceinline__ int columns(int ow) const {
        int start = ow * g.SW - g.left;
        return taps_before(g.W + after, start, g.KW, g.DW) - taps_before(-before, start, g.KW, g.DW);
    }
};

// x (N, H, W, C) → y (N, OH, OW, C)
template <typename real, int V>
__global__ void avg_pool2d(const real* __restrict__ x, real* __restrict__ y, int C, Geometry g,
                           int above, int below, int before, int after) {
    auto [n, oh, ow, c] = place(g.OH, C, V);
    if (ow >= g.OW) return;
    wide<real> sum[V] = {};
    for (int i = 0; i < g.KH; i++) {
        int h = oh * g.SH + i * g.DH - g.top;
        if (h < 0 || h >= g.H) continue;
        for (int j = 0; j < g.KW; j++) {
            int w = ow * g.SW + j * g.DW - g.left;
            if (w < 0 || w >= g.W) continue;
            Pack<real, V> seen = load<real, V>(x + (((long long)n * g.H + h) * g.W + w) * C + c);
#pragma unroll
            for (int v = 0; v < V; v++) sum[v] += widen(seen.at[v]);
        }
    }
    Counting counting{g, above, below, before, after};
    wide<real> count = counting.rows(oh) * counting.columns(ow);
    Pack<real, V> mean;
#pragma unroll
    for (int v = 0; v < V; v++) mean.at[v] = real(sum[v] / count);
    store(y + (((long long)n * g.OH + oh) * g.OW + ow) * C + c, mean);
}

// dy (N, OH, OW, C) → dx (N, H, W, C): each pixel gathers its share from the windows that see it
template <typename real, int V>
__global__ void avg_pool2d_gradient(const real* __restrict__ dy, real* __restrict__ dx, int C, Geometry g,
                                    int above, int below, int before, int after) {
    Place p = place(g.H, C, V);
    if (p.w >= g.W) return;
    Counting counting{g, above, below, before, after};
    wide<real> sum[V] = {};
    each_window(p.h + g.top, g.OH, g.KH, g.SH, g.DH, [&](int, int oh) {
        int rows = counting.rows(oh);
        each_window(p.w + g.left, g.OW, g.KW, g.SW, g.DW, [&](int, int ow) {
            wide<real> count = rows * counting.columns(ow);
            Pack<real, V> given = load<real, V>(dy + (((long long)p.n * g.OH + oh) * g.OW + ow) * C + p.c);
#pragma unroll
            for (int v = 0; v < V; v++) sum[v] += widen(given.at[v]) / count;
        });
    });
    Pack<real, V> total;
#pragma unroll
    for (int v = 0; v < V; v++) total.at[v] = real(sum[v]);
    store(dx + (((long long)p.n * g.H + p.h) * g.W + p.w) * C + p.c, total);
}
