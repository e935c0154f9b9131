// Crop, mirror and normalise images. See minidl/ops/crop.py. A block takes part of a row, a thread V neighbours of it.
#include "minidl.cuh"

// images (N, H, W, C), offsets (N, 2), mirrored (N,), mean and std (C,) → y (N, OH, OW, C)
template <typename real, int V>
__global__ void crop(const uint8_t* __restrict__ images, const long long* __restrict__ offsets,
                     const bool* __restrict__ mirrored, const real* __restrict__ mean, const real* __restrict__ std,
                     real* __restrict__ y, int H, int W, int C, int OH, int OW) {
    int n = blockIdx.x / OH, oh = blockIdx.x % OH;
    int first = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    if (first >= OW * C) return;
    const uint8_t* row = images + (((long long)n * H + offsets[2 * n] + oh) * W + offsets[2 * n + 1]) * C;
    bool mirror = mirrored[n];
    Pack<real, V> values;
#pragma unroll
    for (int v = 0; v < V; v++) {
        int j = (first + v) / C, c = (first + v) % C;
        wide<real> pixel = row[(mirror ? OW - 1 - j : j) * C + c];
        values.at[v] = real((pixel - widen(mean[c])) / widen(std[c]));
    }
    store(y + (long long)blockIdx.x * OW * C + first, values);
}
