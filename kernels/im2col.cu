// im2col and its adjoint, of C of an image's `pixel` channels, from the first on: those of a group. See
// minidl/ops/conv2d.py.
#include "minidl.cuh"
#include "gather.cuh"

// x (N, H, W, pixel) → cols (N, OH, OW, KH, KW, C). A thread takes the same V numbers of many windows, so that it
// divides once.
template <typename real, int V>
__global__ void im2col(const real* __restrict__ x, real* __restrict__ cols, int C, int first, int pixel, Geometry g) {
    int window = g.KH * g.KW * C;
    each_pixel(g.OH, g.OW, window, V, [&](int n, int oh, int ow, int k) {
        int tap = k / C, i = tap / g.KW, j = tap - i * g.KW;
        int h = oh * g.SH + i * g.DH - g.top, w = ow * g.SW + j * g.DW - g.left;
        Pack<real, V> seen = {};
        if (inside(h, g.H) && inside(w, g.W))
            seen = load<real, V>(x + (((long long)n * g.H + h) * g.W + w) * pixel + first + k - tap * C);
        store(cols + (((long long)n * g.OH + oh) * g.OW + ow) * window + k, seen);
    });
}

// cols (N, OH, OW, KH, KW, C) → x (N, H, W, pixel): each pixel adds up what the windows that see it hold of it
template <typename real, int V>
__global__ void col2im(const real* __restrict__ cols, real* __restrict__ x, int C, int first, int pixel, Geometry g) {
    gather<real, V>(x, C, first, pixel, g, g.KH * g.KW * C, [&](long long from, int, int) {
        return [=](int i, int j, wide<real>(&sums)[V]) {
            Pack<real, V> given = load<real, V>(cols + from + (i * g.KW + j) * C);
#pragma unroll
            for (int v = 0; v < V; v++) sums[v] += widen(given.at[v]);
        };
    });
}
