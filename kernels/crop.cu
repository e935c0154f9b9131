// Crop, mirror and normalise images. See minidl/ops/crop.py. A thread takes the same number of many rows: one channel,
// and so one mean and one standard deviation.
#include "minidl.cuh"

// images (N, H, W, C), offsets (N, 2), mirrored (N,), mean and std (C,) → y (N, OH, OW, C)
template <typename real>
__global__ void crop(const uint8_t* __restrict__ images, const long long* __restrict__ offsets,
                     const bool* __restrict__ mirrored, const real* __restrict__ mean, const real* __restrict__ std,
                     real* __restrict__ y, int H, int W, int C, int OH, int OW) {
    int n = blockIdx.x, at = blockIdx.y * blockDim.x + threadIdx.x, j = at / C, c = at % C;
    if (j >= OW) return;
    wide<real> m = widen(mean[c]), s = widen(std[c]);
    int i = blockIdx.z * blockDim.y + threadIdx.y, step = gridDim.z * blockDim.y;
    long long seen = offsets[2 * n + 1] + (mirrored[n] ? OW - 1 - j : j), down = (long long)step * W * C;
    images += ((n * (long long)H + offsets[2 * n] + i) * W + seen) * C + c;
    y += (n * (long long)OH + i) * OW * C + at;
    uint8_t pixels[TURNS];  // all are asked for before the first is needed
#pragma unroll
    for (int t = 0; t < TURNS; t++, images += down)
        if (i + t * step < OH) pixels[t] = *images;
#pragma unroll
    for (int t = 0; t < TURNS; t++, y += (long long)step * OW * C)
        if (i + t * step < OH) *y = real((pixels[t] - m) / s);
}
