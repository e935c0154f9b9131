// Local response normalisation. See minidl/ops/local_response_norm.py. A row is one group of channels of one pixel; a
// thread takes V neighbouring channels of it, a block several rows, or where they are long a part of one. Each number
// comes from global memory once; a neighbour's is then in the cache of the multiprocessor.
//
// AlexNet's windows, 5 channels with β = ¾, have kernels of their own: where the compiler knows the window, a thread
// keeps all that it sees in registers. A power would alone take longer than the memory does.
#include "minidl.cuh"

// --- any window ------------------------------------------------------------------------------------------------------

// sum[v] += Σ value(from + v + o) over o = 0 … count − 1: the window slides, so that each value is asked for once
template <int V, typename number, typename Value>
__device__ __forceinline__ void add_windows(number (&sum)[V], int from, int count, Value value) {
    number seen[V];
#pragma unroll
    for (int v = 1; v < V; v++) seen[v] = value(from + v - 1);
    for (int o = 0; o < count; o++) {
#pragma unroll
        for (int v = 0; v < V - 1; v++) seen[v] = seen[v + 1];
        seen[V - 1] = value(from + o + V - 1);
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] += seen[v];
    }
}

// s of the channels c … c + V − 1
template <int V, typename number, typename real>
__device__ __forceinline__ void normalisers(number (&s)[V], const real* row, int c, int C, int before, int after,
                                            number scale, number k) {
    number sum[V] = {};
    add_windows(sum, c - before, before + 1 + after, [&](int j) {
        if (j < 0 || j >= C) return number(0);
        number x = widen(row[j]);
        return scale * x * x;
    });
#pragma unroll
    for (int v = 0; v < V; v++) s[v] = k + sum[v];
}

// x (rows, C) → y (rows, C)
template <typename real, int V>
__global__ void local_response_norm(const real* __restrict__ x, real* __restrict__ y, long long rows, int C,
                                    int before, int after, wide<real> scale, wide<real> beta, wide<real> k) {
    long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (row >= rows || c >= C) return;
    wide<real> s[V];
    normalisers(s, x + row * C, c, C, before, after, scale, k);
    Pack<real, V> seen = load<real, V>(x + row * C + c);
#pragma unroll
    for (int v = 0; v < V; v++) seen.at[v] = real(widen(seen.at[v]) * pow(s[v], -beta));
    store(y + row * C + c, seen);
}

// dy and x (rows, C) → dx (rows, C). What neighbours j send, dy_j·x_j·s_j^(−β−1), goes through shared memory, as much
// at once as the block has channels.
template <typename real, int V>
__global__ void local_response_norm_gradient(const real* __restrict__ dy, const real* __restrict__ x,
                                             real* __restrict__ dx, long long rows, int C, int before, int after,
                                             wide<real> scale, wide<real> beta, wide<real> k) {
    using number = wide<real>;
    SHARED(number, sent, [V][THREADS]);  // by j % V and j / V: neighbouring threads read neighbouring banks
    long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    int width = blockDim.x * V, start = blockIdx.y * width, c = start + threadIdx.x * V;
    int first_thread = threadIdx.y * blockDim.x, end = min(C, start + width + before);
    number own[V] = {}, direct[V] = {}, received[V] = {};
    for (int first = max(0, start - after) / width * width; first < end; first += width) {
        int j = first + threadIdx.x * V;
        if (row < rows && j < C) {
            Pack<real, V> seen = load<real, V>(x + row * C + j), given = load<real, V>(dy + row * C + j);
            number s[V];
            normalisers(s, x + row * C, j, C, before, after, scale, k);
#pragma unroll
            for (int v = 0; v < V; v++) {
                number factor = pow(s[v], -beta);
                sent[v][first_thread + threadIdx.x] = widen(given.at[v]) * widen(seen.at[v]) * factor / s[v];
                if (j == c) own[v] = widen(seen.at[v]), direct[v] = widen(given.at[v]) * factor;
            }
        }
        __syncthreads();
        // i lies in the window of j exactly where j lies in the window turned around, hence after and before swapped.
        if (row < rows && c < C)
            add_windows(received, c - after, after + 1 + before, [&](int j) {
                int at = j - first;
                return at < 0 || at >= width || j >= C ? number(0) : sent[at % V][first_thread + at / V];
            });
        __syncthreads();
    }
    if (row >= rows || c >= C) return;
    Pack<real, V> result;
#pragma unroll
    for (int v = 0; v < V; v++) result.at[v] = real(direct[v] - 2 * beta * scale * own[v] * received[v]);
    store(dx + row * C + c, result);
}

// --- AlexNet's -------------------------------------------------------------------------------------------------------

constexpr int SIDE = 2;  // channels of a window on either side of its own

// 1/√x and √x of a float as the unit for special functions gives them, to 2⁻²² or better
__device__ __forceinline__ double inverse_root(double x) { return 1 / sqrt(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }
#ifdef CUDA_SHIM
inline float inverse_root(float x) { return 1 / std::sqrt(x); }
inline float root(float x) { return std::sqrt(x); }
#else
__device__ __forceinline__ float inverse_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ float root(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// The channels c − BEYOND … c + V − 1 + BEYOND of a row, and 0 beyond its ends
template <int V, int BEYOND, typename real>
__device__ __forceinline__ void load_around(wide<real> (&seen)[V + 2 * BEYOND], const real* row, int c, int C) {
    if constexpr (V < BEYOND) {
#pragma unroll
        for (int i = 0; i < V + 2 * BEYOND; i++) {
            int j = c - BEYOND + i;
            seen[i] = 0 <= j && j < C ? widen(row[j]) : 0;
        }
    } else {
        Pack<real, V> own = load<real, V>(row + c), before = {}, after = {};
        if (c > 0) before = load<real, V>(row + c - V);
        if (c + V < C) after = load<real, V>(row + c + V);
#pragma unroll
        for (int i = 0; i < BEYOND; i++)
            seen[i] = widen(before.at[V - BEYOND + i]), seen[BEYOND + V + i] = widen(after.at[i]);
#pragma unroll
        for (int v = 0; v < V; v++) seen[BEYOND + v] = widen(own.at[v]);
    }
}

// s^(−½) of the channel in the middle of its window
template <typename number>
__device__ __forceinline__ number inverse_root_of_s(const number* window, number scale, number k) {
    number sum = 0;
#pragma unroll
    for (int o = 0; o <= 2 * SIDE; o++) sum += scale * window[o] * window[o];
    return inverse_root(k + sum);
}

// x (rows, C) → y (rows, C)
template <typename real, int V>
__global__ void alexnet_norm(const real* __restrict__ x, real* __restrict__ y, long long rows, int C,
                             wide<real> scale, wide<real> k) {
    long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (row >= rows || c >= C) return;
    wide<real> seen[V + 2 * SIDE];
    load_around<V, SIDE>(seen, x + row * C, c, C);
    Pack<real, V> result;
#pragma unroll
    for (int v = 0; v < V; v++) {
        auto r = inverse_root_of_s(seen + v, scale, k);
        result.at[v] = real(seen[SIDE + v] * (r * root(r)));
    }
    store(y + row * C + c, result);
}

// dy and x (rows, C) → dx (rows, C). A thread also computes what the SIDE neighbours on either side send, from what is
// in the cache already: that costs less than to wait for other threads.
template <typename real, int V>
__global__ void alexnet_norm_gradient(const real* __restrict__ dy, const real* __restrict__ x, real* __restrict__ dx,
                                      long long rows, int C, wide<real> scale, wide<real> k) {
    using number = wide<real>;
    long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (row >= rows || c >= C) return;
    number seen[V + 4 * SIDE], given[V + 2 * SIDE], sent[V + 2 * SIDE], direct[V + 2 * SIDE];
    load_around<V, 2 * SIDE>(seen, x + row * C, c, C);
    load_around<V, SIDE>(given, dy + row * C, c, C);
#pragma unroll
    for (int j = 0; j < V + 2 * SIDE; j++) {  // of channel c − SIDE + j
        bool there = j < SIDE ? c + j >= SIDE : j < V + SIDE || c + j < C + SIDE;
        number r = inverse_root_of_s(seen + j, scale, k);
        direct[j] = given[j] * (r * root(r));
        sent[j] = there ? direct[j] * seen[SIDE + j] * r * r : 0;
    }
    Pack<real, V> result;
#pragma unroll
    for (int v = 0; v < V; v++) {
        number received = 0;
#pragma unroll
        for (int o = 0; o <= 2 * SIDE; o++) received += sent[v + o];
        result.at[v] = real(direct[SIDE + v] - number(1.5) * scale * seen[2 * SIDE + v] * received);
    }
    store(dx + row * C + c, result);
}
