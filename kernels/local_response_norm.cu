// Local response normalisation. See minidl/ops/local_response_norm.py. A row is one group of channels of one pixel; a
// thread takes V neighbouring channels of it, a block several rows, or where they are long a part of one. Each number
// comes from global memory once; a neighbour's is then in the cache of the multiprocessor.
#include "minidl.cuh"

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

// s^(−β), for β = ¾ by square roots instead of a power
template <typename number> __device__ __forceinline__ number damped(number s, number beta) {
    if (beta != number(0.75)) return pow(s, -beta);
    number root = sqrt(s);
    return 1 / (root * sqrt(root));
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
    for (int v = 0; v < V; v++) seen.at[v] = real(widen(seen.at[v]) * damped(s[v], beta));
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
                number factor = damped(s[v], beta);
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
