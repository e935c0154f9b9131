// Max pooling. See minidl/ops/max_pool2d.py. A block takes part of a row of pixels, a thread V channels of one pixel.
#include "minidl.cuh"

// x (N, H, W, C) → y and winners (N, OH, OW, C)
template <typename real, typename index, int V>
__global__ void max_pool2d(const real* __restrict__ x, real* __restrict__ y, index* __restrict__ winners,
                           int C, Geometry g) {
    auto [n, oh, ow, c] = place(g.OH, C, V);
    if (ow >= g.OW) return;
    Pack<real, V> best;
    Pack<index, V> winner;
    bool found = false;
    for (int v = 0; v < V; v++) best.at[v] = real(-INFINITY), winner.at[v] = 0;
    for (int i = 0; i < g.KH; i++) {
        int h = oh * g.SH + i * g.DH - g.top;
        if (h < 0 || h >= g.H) continue;
        for (int j = 0; j < g.KW; j++) {
            int w = ow * g.SW + j * g.DW - g.left;
            if (w < 0 || w >= g.W) continue;
            Pack<real, V> seen = load<real, V>(x + (((long long)n * g.H + h) * g.W + w) * C + c);
#pragma unroll
            for (int v = 0; v < V; v++) {
                // larger, or the first NaN: all comparisons with a NaN are false
                auto a = widen(seen.at[v]), b = widen(best.at[v]);
                if (!found || (!(a <= b) && b == b)) best.at[v] = seen.at[v], winner.at[v] = index(i * g.KW + j);
            }
            found = true;
        }
    }
    long long out = (((long long)n * g.OH + oh) * g.OW + ow) * C + c;
    store(y + out, best);
    store(winners + out, winner);
}

// dy and winners (N, OH, OW, C) → dx (N, H, W, C): each pixel asks the windows that see it whether it won
template <typename real, typename index, int V>
__global__ void max_pool2d_gradient(const real* __restrict__ dy, const index* __restrict__ winners,
                                    real* __restrict__ dx, int C, Geometry g) {
    Place p = place(g.H, C, V);
    if (p.w >= g.W) return;
    wide<real> sum[V] = {};
    each_window(p.h + g.top, g.OH, g.KH, g.SH, g.DH, [&](int i, int oh) {
        each_window(p.w + g.left, g.OW, g.KW, g.SW, g.DW, [&](int j, int ow) {
            long long from = (((long long)p.n * g.OH + oh) * g.OW + ow) * C + p.c;
            Pack<index, V> winner = load<index, V>(winners + from);
            Pack<real, V> given = load<real, V>(dy + from);
#pragma unroll
            for (int v = 0; v < V; v++)
                if (winner.at[v] == index(i * g.KW + j)) sum[v] += widen(given.at[v]);
        });
    });
    Pack<real, V> total;
    for (int v = 0; v < V; v++) total.at[v] = real(sum[v]);
    store(dx + (((long long)p.n * g.H + p.h) * g.W + p.w) * C + p.c, total);
}
