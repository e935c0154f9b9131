// Rows of C channels: the loop over them, and sums over them for each channel, in float64 and in an order that depends
// on the shape alone. Include it behind minidl.cuh. The grid is that of `shares` in kernels/cuda.py: block (b, t) takes
// the b-th share of the rows and the t-th part of the channels, a thread V channels of every blockDim.y-th row.

__device__ __forceinline__ int first_channel(int V) { return (blockIdx.y * blockDim.x + threadIdx.x) * V; }

// Calls body(i) for each row of the thread, where i = row·C + c is the place of its channels.
template <typename Body> __device__ __forceinline__ void each_row(long long rows, int C, int c, Body body) {
    long long share = (rows + gridDim.x - 1) / gridDim.x, start = blockIdx.x * share, end = min(rows, start + share);
#pragma unroll 4
    for (long long row = start + threadIdx.y; row < end; row += blockDim.y) body(row * C + c);
}

// V numbers of any address and dtype, ready to compute with.
template <int V, typename real> __device__ __forceinline__ Pack<wide<real>, V> load_wide(const real* p) {
    Pack<wide<real>, V> result;
#pragma unroll
    for (int v = 0; v < V; v++) result.at[v] = widen(p[v]);
    return result;
}

// The first of two steps: partials[share][s][c] from add(i, sums), which adds a row's terms to double sums[SUMS][V].
template <int SUMS, int V, typename Add>
__device__ __forceinline__ void sum_shares(double* partials, long long rows, int C, Add add) {
    SHARED(double, tile, [SUMS * V][THREADS]);
    int c = first_channel(V), threads = blockDim.x * blockDim.y, me = threadIdx.y * blockDim.x + threadIdx.x;
    double sums[SUMS][V] = {};
    if (c < C) each_row(rows, C, c, [&](long long i) { add(i, sums); });
#pragma unroll
    for (int k = 0; k < SUMS * V; k++) tile[k][me] = sums[k / V][k % V];
    __syncthreads();
    for (int task = me; task < SUMS * V * (int)blockDim.x; task += threads) {
        int k = task / blockDim.x, column = task % blockDim.x;
        int channel = (blockIdx.y * blockDim.x + column) * V + k % V;
        double sum = 0;
        for (int t = column; t < threads; t += blockDim.x) sum += tile[k][t];
        if (channel < C) partials[((long long)blockIdx.x * SUMS + k / V) * C + channel] = sum;
    }
}

// The second step, with the grid of `over_channels`: finish(c, sums) gets a channel's double sums[SUMS].
template <int SUMS, typename Finish>
__device__ __forceinline__ void add_shares(const double* partials, int shares, int C, Finish finish) {
    SHARED(double, tile, [SUMS][THREADS]);
    int c = blockIdx.x * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    double sums[SUMS] = {};
    for (int share = threadIdx.y; c < C && share < shares; share += blockDim.y)
#pragma unroll
        for (int s = 0; s < SUMS; s++) sums[s] += partials[((long long)share * SUMS + s) * C + c];
#pragma unroll
    for (int s = 0; s < SUMS; s++) tile[s][threadIdx.y * blockDim.x + threadIdx.x] = sums[s];
    __syncthreads();
    if (c >= C || threadIdx.y) return;
#pragma unroll
    for (int s = 0; s < SUMS; s++)
        for (int t = threadIdx.x + blockDim.x; t < threads; t += blockDim.x) sums[s] += tile[s][t];
    finish(c, sums);
}
