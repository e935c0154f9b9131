// Average pooling. See minidl/ops/avg_pool2d.py. A thread takes V channels of a pixel, or of a tile of them.
#include "minidl.cuh"
#include "gather.cuh"

// How many of the K taps start, start + D, … lie before `end`
__device__ __forceinline__ int taps_before(int end, int start, int K, int D) {
    return min(quotient(max(end - start + D - 1, 0), D), K);
}

// How many taps of output (oh, ow) count: those in rows −above … H + below − 1 and columns −before … W + after − 1.
// These four are the padding where that counts, else 0.
struct Counting {
    Geometry g;
    int above, below, before, after;
    __device__ __forceinline__ int at(int oh, int ow) const {
        int down = oh * g.SH - g.top, right = ow * g.SW - g.left;
        int rows = taps_before(g.H + below, down, g.KH, g.DH) - taps_before(-above, down, g.KH, g.DH);
        return rows * (taps_before(g.W + after, right, g.KW, g.DW) - taps_before(-before, right, g.KW, g.DW));
    }
};

// x (N, H, W, C) → y (N, OH, OW, C)
template <typename real, int V>
__global__ void avg_pool2d(const real* __restrict__ x, real* __restrict__ y, int C, Geometry g,
                           int above, int below, int before, int after) {
    Counting counting{g, above, below, before, after};
    each_pixel(g.OH, g.OW, C, V, [&](int n, int oh, int ow, int c) {
        wide<real> sum[V] = {}, count = counting.at(oh, ow);
        for (int i = 0; i < g.KH; i++) {
            int h = oh * g.SH + i * g.DH - g.top;
            if (!inside(h, g.H)) continue;
            int w = ow * g.SW - g.left;
            long long at = (((long long)n * g.H + h) * g.W + w) * C + c, step = (long long)g.DW * C;
            for (int j = 0; j < g.KW; j++, w += g.DW, at += step) {
                if (!inside(w, g.W)) continue;
                Pack<real, V> seen = load<real, V>(x + at);
#pragma unroll
                for (int v = 0; v < V; v++) sum[v] += widen(seen.at[v]);
            }
        }
        Pack<real, V> mean;
#pragma unroll
        for (int v = 0; v < V; v++) mean.at[v] = real(sum[v] / count);
        store(y + (((long long)n * g.OH + oh) * g.OW + ow) * C + c, mean);
    });
}

// dy (N, OH, OW, C) → dx (N, H, W, C): each pixel gathers its share from the windows that see it
template <typename real, int V>
__global__ void avg_pool2d_gradient(const real* __restrict__ dy, real* __restrict__ dx, int C, Geometry g,
                                    int above, int below, int before, int after) {
    Counting counting{g, above, below, before, after};
    gather<real, V>(dx, C, 0, C, g, C, [&](long long from, int oh, int ow) {
        auto given = widened(load<real, V>(dy + from));
        wide<real> share = wide<real>(1) / counting.at(oh, ow);
        return [=](int, int, wide<real>(&sums)[V]) {
#pragma unroll
            for (int v = 0; v < V; v++) sums[v] += given.at[v] * share;
        };
    });
}
