// im2col and its adjoint, of C of an image's `pixel` channels, from the first on: those of a group. See
// minidl/ops/conv2d.py. Threads with neighbouring numbers take neighbouring channels.
#include "minidl.cuh"

// x (N, H, W, pixel) → cols (N, OH, OW, KH, KW, C). A block lays out part of a row of output pixels, a thread V numbers
// of each row of a window.
template <typename real, int V>
__global__ void im2col(const real* __restrict__ x, real* __restrict__ cols, int C, int first, int pixel, Geometry g) {
    int row = g.KW * C;
    auto [n, oh, ow, k] = place(g.OH, row, V);
    if (ow >= g.OW) return;
    int w = ow * g.SW + k / C * g.DW - g.left;
    bool in_row = w >= 0 && w < g.W;
    long long to = ((long long)blockIdx.x * g.OW + ow) * g.KH * row + k;
    for (int i = 0; i < g.KH; i++, to += row) {
        int h = oh * g.SH + i * g.DH - g.top;
        Pack<real, V> seen = {};
        if (in_row && h >= 0 && h < g.H)
            seen = load<real, V>(x + (((long long)n * g.H + h) * g.W + w) * pixel + first + k % C);
        store(cols + to, seen);
    }
}

// cols (N, OH, OW, KH, KW, C) → x (N, H, W, pixel). A block takes part of a row of pixels, a thread V channels of one
// pixel, and adds up what the windows that see it hold of it.
template <typename real, int V>
__global__ void col2im(const real* __restrict__ cols, real* __restrict__ x, int C, int first, int pixel, Geometry g) {
    Place p = place(g.H, C, V);
    if (p.w >= g.W) return;
    wide<real> sum[V] = {};
    each_window(p.h + g.top, g.OH, g.KH, g.SH, g.DH, [&](int i, int oh) {
        each_window(p.w + g.left, g.OW, g.KW, g.SW, g.DW, [&](int j, int ow) {
            long long window = ((long long)p.n * g.OH + oh) * g.OW + ow;
            Pack<real, V> given = load<real, V>(cols + ((window * g.KH + i) * g.KW + j) * C + p.c);
#pragma unroll
            for (int v = 0; v < V; v++) sum[v] += widen(given.at[v]);
        });
    });
    Pack<real, V> total;
    for (int v = 0; v < V; v++) total.at[v] = real(sum[v]);
    store(x + (((long long)p.n * g.H + p.h) * g.W + p.w) * pixel + first + p.c, total);
}
