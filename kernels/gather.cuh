// What a pixel receives from the windows that see it, gathered. Include it behind minidl.cuh.
//
// A thread takes a tile of 2×2 pixels, as those share most of their windows. The grid is that of `tiles` in
// kernels/cuda.py.
constexpr int TILE = 2;
using Taps = int[TILE];

// Calls body(o, from, taps) for the windows o that see place at or at + 1 of an axis, counted from the padding's
// beginning, the last window first. It sees at + p with its tap taps[p], which is −1 where it does not; from is
// origin + o·size.
template <typename Body>
__device__ __forceinline__ void each_window(int at, int outputs, int K, int S, int D, long long origin, long long size,
                                            Body body) {
    int o = min(quotient(at + TILE - 1, S), outputs - 1);
    long long from = origin + o * size;
    for (int behind = at - o * S; o >= 0 && behind <= (K - 1) * D; o--, behind += S, from -= size) {
        Taps taps;
#pragma unroll
        for (int p = 0; p < TILE; p++) {
            int i = quotient(behind + p, D);
            taps[p] = inside(i, K) && i * D == behind + p ? i : -1;
        }
        body(o, from, taps);
    }
}

// C of an image's `pixel` channels, from the first on: x = Σ over the windows that see it, which have `size` numbers
// each. see(from, oh, ow) reads what is there for this thread of window (oh, ow), whose numbers for it begin at `from`,
// and returns what adds that to a pixel: add(i, j, sums), where (i, j) is the tap that sees it.
template <typename real, int V, typename See>
__device__ __forceinline__ void gather(real* x, int C, int first, int pixel, Geometry g, int size, See see) {
    each_pixel((g.H + TILE - 1) / TILE, (g.W + TILE - 1) / TILE, C, V, [&](int n, int a, int b, int c) {
        int h = TILE * a, w = TILE * b;
        long long row = (long long)g.OW * size, image = n * g.OH * row + c, down = (long long)g.W * pixel;
        wide<real> sums[TILE][TILE][V] = {};
        each_window(h + g.top, g.OH, g.KH, g.SH, g.DH, image, row, [&](int oh, long long line, const Taps& i) {
            each_window(w + g.left, g.OW, g.KW, g.SW, g.DW, line, size, [&](int ow, long long from, const Taps& j) {
                auto add = see(from, oh, ow);
#pragma unroll
                for (int p = 0; p < TILE; p++)
#pragma unroll
                    for (int q = 0; q < TILE; q++)
                        if (i[p] >= 0 && j[q] >= 0) add(i[p], j[q], sums[p][q]);
            });
        });
        real* tile = x + (n * (long long)g.H + h) * down + (long long)w * pixel + first + c;
#pragma unroll
        for (int p = 0; p < TILE; p++)
#pragma unroll
            for (int q = 0; q < TILE; q++) {
                Pack<real, V> total;
#pragma unroll
                for (int v = 0; v < V; v++) total.at[v] = real(sums[p][q][v]);
                if (h + p < g.H && w + q < g.W) store(tile + p * down + q * pixel, total);
            }
    });
}
