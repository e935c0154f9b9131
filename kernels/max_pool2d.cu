// Max pooling. See minidl/ops/max_pool2d.py. A thread takes V channels of a pixel, or of a tile of them.
#include "minidl.cuh"
#include "gather.cuh"

// x (N, H, W, C) → y and winners (N, OH, OW, C)
template <typename real, typename index, int V>
__global__ void max_pool2d(const real* __restrict__ x, real* __restrict__ y, index* __restrict__ winners,
                           int C, Geometry g) {
    each_pixel(g.OH, g.OW, C, V, [&](int n, int oh, int ow, int c) {
        wide<real> best[V];
        int winner[V], first = -1;
        for (int v = 0; v < V; v++) best[v] = -INFINITY, winner[v] = -1;
        for (int i = 0; i < g.KH; i++) {
            int h = oh * g.SH + i * g.DH - g.top;
            if (!inside(h, g.H)) continue;
            int w = ow * g.SW - g.left, tap = i * g.KW;
            long long at = (((long long)n * g.H + h) * g.W + w) * C + c, step = (long long)g.DW * C;
            for (int j = 0; j < g.KW; j++, tap++, w += g.DW, at += step) {
                if (!inside(w, g.W)) continue;
                Pack<real, V> seen = load<real, V>(x + at);
                if (first < 0) first = tap;
#pragma unroll
                for (int v = 0; v < V; v++) {
                    // larger, or the first NaN: all comparisons with a NaN are false
                    wide<real> a = widen(seen.at[v]);
                    if (!(a <= best[v]) && best[v] == best[v]) best[v] = a, winner[v] = tap;
                }
            }
        }
        Pack<real, V> largest;
        Pack<index, V> taps;
#pragma unroll
        for (int v = 0; v < V; v++) {
            largest.at[v] = real(best[v]);
            taps.at[v] = index(max(winner[v] < 0 ? first : winner[v], 0));  // the first, where nothing exceeds −∞
        }
        long long out = (((long long)n * g.OH + oh) * g.OW + ow) * C + c;
        store(y + out, largest);
        store(winners + out, taps);
    });
}

// V winners as they lie side by side in words: one instruction compares one of them with a tap that stands everywhere.
template <typename index, int V> struct Winners {
    static constexpr int SIZE = sizeof(index), WORDS = (V * SIZE + 3) / 4;
    static constexpr uint32_t LARGEST = index(-1);
    Pack<uint32_t, WORDS> words = {};
    __device__ __forceinline__ explicit Winners(const index* p) {
        if constexpr (V * SIZE >= 4)
            words = load<uint32_t, WORDS>(reinterpret_cast<const uint32_t*>(p));
        else
            for (int v = 0; v < V; v++) words.at[0] |= p[v] << v * SIZE * 8;
    }
    __device__ __forceinline__ bool is(int v, int tap) const {
        uint32_t differs = words.at[v * SIZE / 4] ^ tap * (~0u / LARGEST);
        return (differs & LARGEST << v * SIZE % 4 * 8) == 0;
    }
};

// dy and winners (N, OH, OW, C) → dx (N, H, W, C): each pixel asks the windows that see it whether it won
template <typename real, typename index, int V>
__global__ void max_pool2d_gradient(const real* __restrict__ dy, const index* __restrict__ winners,
                                    real* __restrict__ dx, int C, Geometry g) {
    gather<real, V>(dx, C, 0, C, g, C, [&](long long from, int, int) {
        Winners<index, V> winner(winners + from);
        auto given = widened(load<real, V>(dy + from));
        return [=](int i, int j, wide<real>(&sums)[V]) {
#pragma unroll
            for (int v = 0; v < V; v++)
                if (winner.is(v, i * g.KW + j)) sums[v] += given.at[v];
        };
    });
}
