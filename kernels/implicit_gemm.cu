// Convolution as an implicit matrix product on tensor cores: im2col's columns exist only as tiles in shared memory.
// See minidl/ops/conv2d.py. With pixels p, channels c and o of a group, taps (i, j),
//
//   y[p, o]             = Σ_{i,j,c} cols[p, i, j, c] · weight[i, j, c, o]
//   dx[p, c]            = Σ_{i,j,o} dy[what p was seen by through (i, j), o] · weight[i, j, c, o]
//   dweight[i, j, c, o] = Σ_p cols[p, i, j, c] · dy[p, o]
//
// A block of 4 warps computes EDGE×EDGE numbers of one of these, EDGE = 128 or 64, and each warp a quarter of them: the
// larger the quarter, the more products does a fragment serve that has come from shared memory. The block goes along K
// in steps of 64 bytes, 32 halves or 16 floats; while it multiplies one pair of tiles, the next two are on their way. A
// step of EDGE = 128 reads 16 KB and does 64 operations for each byte with halves, 32 with floats (EDGE = 64: half of
// that); the three pairs take 62 KB of shared memory (31), so that two blocks or more run at a time. Lines in shared
// memory are padded so that the words of a fragment lie in different banks.
#include "tensor_core.cuh"

constexpr int STAGES = 3;
constexpr int BLOCK = 128;  // threads: 2×2 warps, each with a quarter of a tile
constexpr int NOWHERE = -(1 << 30);

template <bool LARGE> constexpr int EDGE = LARGE ? 128 : 64;
template <bool LARGE> using Sums = float[EDGE<LARGE> / 32][EDGE<LARGE> / 16][4];  // of a thread, by 16 rows × 8 columns
template <typename real> constexpr int DEPTH = 64 / sizeof(real);  // numbers along K in a tile

// A tile of an operand as it lies in memory: lines along K, or across it.
template <typename real, bool ALONG_K, bool LARGE> struct Tile {
    static constexpr int LINES = ALONG_K ? EDGE<LARGE> : DEPTH<real>;
    static constexpr int WIDTH = ALONG_K ? DEPTH<real> : EDGE<LARGE>;
    static constexpr int LD = WIDTH + (ALONG_K ? 16 / (int)sizeof(real) : 8);
};

// The part of a tile that a thread copies: V numbers of every STEP-th line.
template <typename real, bool ALONG_K, bool LARGE, int V> struct Part {
    using Whole = Tile<real, ALONG_K, LARGE>;
    static constexpr int STEP = BLOCK * V / Whole::WIDTH;
    static __device__ int line() { return threadIdx.x / (Whole::WIDTH / V); }
    static __device__ int column() { return threadIdx.x % (Whole::WIDTH / V) * V; }
};

// n = (a·B + b)·C + c, b < B, c < C. Adding needs no division.
struct Digits {
    int a, b, c;
    __device__ Digits(int n, int B, int C) : a(n / C / B), b(n / C % B), c(n % C) {}
    __device__ void add(const Digits& d, int B, int C) {
        c += d.c;
        if (c >= C) c -= C, b++;
        b += d.b;
        if (b >= B) b -= B, a++;
        a += d.a;
    }
};

// Along one axis: position p < positions sees through tap u < taps the pixel stride·p + step·u + start, if that lies
// in 0 … size − 1.
struct Axis { int positions, stride, taps, step, start, size; };

// A position as a line of a tile: what it sees through tap 0, in an image that begins at pixel `image`; and the pixel
// that it becomes.
struct alignas(16) Line { int image, h, w, to; };

// --- operands: `at`, called for the lines in order, tells where V numbers of a line come from ------------------------

// Where V numbers lie in global memory; or zeros, if they are not there: then nobody reads at that address.
template <typename real> struct Source {
    const real* from;
    bool there;
};

// What each position sees: K = (u, v, c), with `channels` of the C channels.
template <typename real, bool LARGE, int V> struct Seen {
    static constexpr bool ALONG_K = true;
    const real* origin;
    const Line* lines;
    Axis rows, columns;
    int C, channels;
    Digits k, step;

    __device__ Seen(const real* from, const Line* lines, const Axis& rows, const Axis& columns, int C, int channels)
        : origin(from), lines(lines), rows(rows), columns(columns), C(C), channels(channels),
          k(Part<real, true, LARGE, V>::column(), columns.taps, channels), step(DEPTH<real>, columns.taps, channels) {}
    __device__ Source<real> at(int line) const {
        Line seen = lines[line];
        int h = seen.h + k.a * rows.step, w = seen.w + k.b * columns.step;
        bool inside = k.a < rows.taps && 0 <= h && h < rows.size && 0 <= w && w < columns.size;
        int pixel = inside ? seen.image + h * columns.size + w : 0;
        return {origin + (long long)pixel * C + k.c, inside};
    }
    __device__ void advance() { k.add(step, columns.taps, channels); }
};

// A filter's taps that a class of pixels needs, turned: K = (u, v, o), lines are input channels.
template <typename real, bool LARGE, int V> struct Turned {
    static constexpr bool ALONG_K = true;
    const real* origin;
    int taps, first, i_step, j_step, inputs, c, O;
    const Digits& k;  // which the other operand moves on

    __device__ Source<real> at(int line) const {
        bool inside = k.a < taps && c + line < inputs;
        int filter = inside ? (first + k.a * i_step + k.b * j_step) * inputs + c + line : 0;
        return {origin + (long long)filter * O + k.c, inside};
    }
    __device__ void advance() {}
};

// A matrix: `lines` lines of O numbers, K across them, of which those from `origin` on count.
template <typename real, bool LARGE, int V> struct Matrix {
    static constexpr bool ALONG_K = false;
    const real* origin;
    int lines, O;
    bool inside;

    __device__ Source<real> at(int line) const { return {origin + (long long)line * O, inside && line < lines}; }
    __device__ void advance() { origin += (long long)DEPTH<real> * O, lines -= DEPTH<real>; }
};

// Columns of im2col as lines: K = pixels (n, oh, ow), across them (i, j, c).
template <typename real, bool LARGE, int V> struct Columns {
    static constexpr bool ALONG_K = false;
    const real* origin;
    int C, h, w, left;  // what position (0, 0) sees; how many pixels are to come
    const Geometry& g;
    Digits p, step;

    __device__ Source<real> at(int) {
        int down = p.b * g.SH + h, right = p.c * g.SW + w;
        bool inside = left > 0 && 0 <= down && down < g.H && 0 <= right && right < g.W;
        int pixel = inside ? (p.a * g.H + down) * g.W + right : 0;
        p.add(step, g.OH, g.OW), left -= Part<real, false, LARGE, V>::STEP;
        return {origin + (long long)pixel * C, inside};
    }
    __device__ void advance() {}
};

// --- the product ---------------------------------------------------------------------------------------------------

template <typename real, int V, bool LARGE, typename Operand>
__device__ __forceinline__ void copy_tile(real* tile, Operand& operand) {
    using Whole = Tile<real, Operand::ALONG_K, LARGE>;
    using Mine = Part<real, Operand::ALONG_K, LARGE, V>;
#pragma unroll 4
    for (int l = 0; l < Whole::LINES; l += Mine::STEP) {
        int line = Mine::line() + l;
        Source<real> source = operand.at(line);
        copy_async<V>(tile + line * Whole::LD + Mine::column(), source.from, !source.there);
    }
}

// Where in a tile the quarter of this warp begins
template <bool LARGE> __device__ int first_row() { return threadIdx.x / 32 % 2 * (EDGE<LARGE> / 2); }
template <bool LARGE> __device__ int first_column() { return threadIdx.x / 64 * (EDGE<LARGE> / 2); }

// sums = A·B over so many steps along K
template <typename real, int V, bool LARGE, typename OfA, typename OfB>
__device__ __forceinline__ void multiply(OfA& a, OfB& b, int steps, real* tiles, Sums<LARGE>& sums) {
    using A = Tile<real, OfA::ALONG_K, LARGE>;
    using B = Tile<real, OfB::ALONG_K, LARGE>;
    constexpr int M = EDGE<LARGE> / 32, SIZE_A = A::LINES * A::LD, SIZE = SIZE_A + B::LINES * B::LD;
    int row = first_row<LARGE>(), column = first_column<LARGE>();
    auto fetch = [&](int step) {
        real* pair = tiles + step % STAGES * SIZE;
        if (step < steps) {
            copy_tile<real, V, LARGE>(pair, a);
            copy_tile<real, V, LARGE>(pair + SIZE_A, b);
            a.advance(), b.advance();
        }
        commit_copies();
    };
    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // all have this pair, and are done with the one before, whose place is filled next
        fetch(step + STAGES - 1);
        const real* pair = tiles + step % STAGES * SIZE;
#pragma unroll
        for (int k = 0; k < DEPTH<real>; k += 32 / sizeof(real)) {
            unsigned from_a[M][4], from_b[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) fragment<true, OfA::ALONG_K, A::LD>(from_a[m], pair, row + 16 * m, k);
#pragma unroll
            for (int n = 0; n < M; n++)
                fragment<false, OfB::ALONG_K, B::LD>(from_b[n], pair + SIZE_A, column + 16 * n, k);
#pragma unroll
            for (int n = 0; n < 2 * M; n++)
#pragma unroll
                for (int m = 0; m < M; m++) mma<real>(sums[m][n], from_a[m], from_b[n / 2] + n % 2 * 2);
        }
    }
}

// Calls write(row, column, number there, number in the next column) for all that the thread holds of a tile.
template <bool LARGE, typename Write> __device__ __forceinline__ void each_pair(const Sums<LARGE>& sums, Write write) {
    constexpr int M = EDGE<LARGE> / 32;
    int row = first_row<LARGE>() + lane() / 4, column = first_column<LARGE>() + lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < 2 * M; n++)
                write(row + 16 * m + 8 * half, column + 8 * n, sums[m][n][2 * half], sums[m][n][2 * half + 1]);
}

// Two neighbours of a row, of which `room` still belong to it: where V divides it, both.
template <int V, typename real> __device__ __forceinline__ void put(real* to, int room, float one, float other) {
    if (V > 1 && room > 0) store(to, Pack<real, 2>{real(one), real(other)});
    if (V == 1 && room > 0) to[0] = real(one);
    if (V == 1 && room > 1) to[1] = real(other);
}

// The lines of a tile: positions (n, p, q) from the first on, as long as there are any; they become pixels to(n, p, q).
template <bool LARGE, typename To>
__device__ __forceinline__ void see(Line* lines, int first, int count, const Axis& rows, const Axis& columns, To to) {
    if (threadIdx.x < EDGE<LARGE>) {
        int number = first + threadIdx.x;
        Digits at(number, rows.positions, columns.positions);
        bool there = number < count;
        Line line = {at.a * rows.size * columns.size, there ? at.b * rows.stride + rows.start : NOWHERE,
                     at.c * columns.stride + columns.start, there ? to(at) : NOWHERE};
        lines[threadIdx.x] = line;
    }
    __syncthreads();
}

__device__ __forceinline__ int ceil_div(int n, int d) { return (n + d - 1) / d; }

// x (N, H, W, C), weight (KH, KW, C/groups, O), bias (O) or null → y (N, OH, OW, O), max(y, 0) where relu is set.
// Blocks: (tiles of positions × tiles of O/groups, groups)
template <typename tensor, int V, bool LARGE>
__global__ __launch_bounds__(BLOCK, LARGE ? 2 : 4)
void implicit_conv2d(const tensor* __restrict__ x, const tensor* __restrict__ weight, const tensor* __restrict__ bias,
                     tensor* __restrict__ y, int N, int C, int O, bool relu, Geometry g) {
    DYNAMIC_SHARED(Line, lines);
    int inputs = C / gridDim.y, outputs = O / gridDim.y, across = ceil_div(outputs, EDGE<LARGE>);
    int p0 = blockIdx.x / across * EDGE<LARGE>, o0 = blockIdx.x % across * EDGE<LARGE>, group = blockIdx.y;
    int K = g.KH * g.KW * inputs;
    Axis rows = {g.OH, g.SH, g.KH, g.DH, -g.top, g.H}, columns = {g.OW, g.SW, g.KW, g.DW, -g.left, g.W};
    see<LARGE>(lines, p0, N * g.OH * g.OW, rows, columns,
               [&](const Digits& p) { return (p.a * g.OH + p.b) * g.OW + p.c; });
    Seen<tensor, LARGE, V> a(x + group * inputs, lines, rows, columns, C, inputs);
    int o = o0 + Part<tensor, false, LARGE, V>::column();
    Matrix<tensor, LARGE, V> b = {weight + group * outputs + (o < outputs ? o : 0), K, O, o < outputs};
    Sums<LARGE> sums = {};
    multiply<tensor, V, LARGE>(a, b, ceil_div(K, DEPTH<tensor>), reinterpret_cast<tensor*>(lines + EDGE<LARGE>), sums);
    each_pair<LARGE>(sums, [&](int row, int column, float one, float other) {
        int pixel = lines[row].to, room = pixel < 0 ? 0 : outputs - o0 - column, o = group * outputs + o0 + column;
        if (bias && room > 0) one += widen(bias[o]);
        if (bias && room > 1) other += widen(bias[o + 1]);
        if (relu) one = one < 0 ? 0 : one, other = other < 0 ? 0 : other;  // a NaN stays
        put<V>(y + (long long)pixel * O + o, room, one, other);
    });
}

// Pixels r, r + S, r + 2S, … of `size`, and the taps first, first + period, … through which any output of a convolution
// with stride S and dilation D sees them: between such taps lie whole strides.
struct Residue : Axis { int first, period; };

__device__ Residue residue(int r, int size, int outputs, int taps, int S, int D, int before) {
    int period = 1, first = 0;
    while (period * D % S) period++;
    while (first < period && (r + before - first * D) % S) first++;
    int count = first < min(period, taps) ? (taps - first - 1) / period + 1 : 0;
    int start = (r + before - first * D) / S;
    return {{(size - r - 1) / S + 1, 1, count, -(period * D / S), start, outputs}, first, period};
}

// dy (N, OH, OW, O), weight (KH, KW, C/groups, O) → dx (N, H, W, C). A block takes pixels with the same h mod SH and
// w mod SW, which the same taps reach: so no step along K is for taps between two strides.
// Blocks: (tiles of such pixels × tiles of C/groups, groups × classes of pixels)
template <typename tensor, int V, bool LARGE>
__global__ __launch_bounds__(BLOCK, LARGE ? 2 : 4)
void implicit_input_gradient(const tensor* __restrict__ dy, const tensor* __restrict__ weight,
                             tensor* __restrict__ dx, int N, int C, int O, int groups, Geometry g) {
    DYNAMIC_SHARED(Line, lines);
    int inputs = C / groups, outputs = O / groups, across = ceil_div(inputs, EDGE<LARGE>);
    int group = blockIdx.y % groups, kind = blockIdx.y / groups, kinds = min(g.SW, g.W);
    int top = kind / kinds, left = kind % kinds;
    Residue rows = residue(top, g.H, g.OH, g.KH, g.SH, g.DH, g.top);
    Residue columns = residue(left, g.W, g.OW, g.KW, g.SW, g.DW, g.left);
    int p0 = blockIdx.x / across * EDGE<LARGE>, c0 = blockIdx.x % across * EDGE<LARGE>;
    int pixels = N * rows.positions * columns.positions;
    if (p0 >= pixels) return;
    if (!columns.taps) rows.taps = 0, columns.taps = 1;
    see<LARGE>(lines, p0, pixels, rows, columns,
               [&](const Digits& p) { return (p.a * g.H + top + p.b * g.SH) * g.W + left + p.c * g.SW; });
    Seen<tensor, LARGE, V> a(dy + group * outputs, lines, rows, columns, O, outputs);
    Turned<tensor, LARGE, V> b = {
        weight + group * outputs, rows.taps, rows.first * g.KW + columns.first, rows.period * g.KW, columns.period,
        inputs, c0, O, a.k};
    Sums<LARGE> sums = {};
    multiply<tensor, V, LARGE>(a, b, ceil_div(rows.taps * columns.taps * outputs, DEPTH<tensor>),
                               reinterpret_cast<tensor*>(lines + EDGE<LARGE>), sums);
    each_pair<LARGE>(sums, [&](int row, int column, float one, float other) {
        int pixel = lines[row].to, room = pixel < 0 ? 0 : inputs - c0 - column;
        put<V>(dx + (long long)pixel * C + group * inputs + c0 + column, room, one, other);
    });
}

// x (N, H, W, C), dy (N, OH, OW, O) → partial (splits, KH, KW, C/groups, O), each over `share` of all positions.
// Blocks: (tiles of KH·KW·C/groups × tiles of O/groups, groups × splits)
template <typename tensor, int V, bool LARGE>
__global__ __launch_bounds__(BLOCK, LARGE ? 2 : 4)
void implicit_weight_gradient(const tensor* __restrict__ x, const tensor* __restrict__ dy, float* __restrict__ partial,
                              int N, int C, int O, int groups, int share, Geometry g) {
    DYNAMIC_SHARED(tensor, tiles);
    int inputs = C / groups, outputs = O / groups, across = ceil_div(outputs, EDGE<LARGE>);
    int m0 = blockIdx.x / across * EDGE<LARGE>, o0 = blockIdx.x % across * EDGE<LARGE>;
    int group = blockIdx.y % groups, split = blockIdx.y / groups, height = g.KH * g.KW * inputs;
    int begin = split * share, count = min(share, N * g.OH * g.OW - begin);
    using Mine = Part<tensor, false, LARGE, V>;
    int m = m0 + Mine::column(), o = o0 + Mine::column(), line = Mine::line();
    Digits tap(m, g.KW, inputs);
    Columns<tensor, LARGE, V> a = {
        x + group * inputs + tap.c, C, tap.a * g.DH - g.top, tap.b * g.DW - g.left, m < height ? count - line : 0, g,
        Digits(begin + line, g.OH, g.OW), Digits(Mine::STEP, g.OH, g.OW)};
    Matrix<tensor, LARGE, V> b = {dy + (long long)begin * O + group * outputs + (o < outputs ? o : 0), count, O,
                                  o < outputs};
    Sums<LARGE> sums = {};
    multiply<tensor, V, LARGE>(a, b, ceil_div(count, DEPTH<tensor>), tiles, sums);
    each_pair<LARGE>(sums, [&](int row, int column, float one, float other) {
        int room = m0 + row < height ? outputs - o0 - column : 0;
        long long to = ((long long)split * height + m0 + row) * O + group * outputs + o0 + column;
        put<V>(partial + to, room, one, other);
    });
}

// total[i] = Σ_split partial[split, i] for i < n, in the order of splits
template <typename tensor>
__global__ void sum_of_splits(const float* __restrict__ partial, tensor* __restrict__ total, long long n, int splits) {
    EACH(i, n) {
        float sum = 0;
        for (int split = 0; split < splits; split++) sum += partial[split * n + i];
        total[i] = tensor(sum);
    }
}
