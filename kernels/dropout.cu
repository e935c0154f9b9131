// Dropout: mask and product in one pass. See minidl/ops/dropout.py.
#include "minidl.cuh"

struct Words {
    uint32_t at[4];
};

// Philox4x32-10: see minidl/random.py
__device__ __forceinline__ Words philox(Words c, uint32_t key0, uint32_t key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        c = {__umulhi(0xCD9E8D57, c.at[2]) ^ c.at[1] ^ key0, 0xCD9E8D57 * c.at[2],
             __umulhi(0xD2511F53, c.at[0]) ^ c.at[3] ^ key1, 0xD2511F53 * c.at[0]};
        key0 += 0x9E3779B9, key1 += 0xBB67AE85;
    }
    return c;
}

// x (N, size) → y: y = x · scale where the word that is drawn is not below `drop`, else 0. A block takes part of a
// sample, a thread the numbers of one counter, or of two where 16 bytes are as many.
template <typename real, int V>
__global__ void dropout(const real* __restrict__ x, real* __restrict__ y, unsigned drop, wide<real> scale,
                        unsigned key0, unsigned key1, unsigned sample, long long size) {
    constexpr int numbers = V > 4 ? V : 4;
    x += blockIdx.x * size, y += blockIdx.x * size;
    long long step = (long long)gridDim.y * blockDim.x * numbers;
    for (long long e = (blockIdx.y * (long long)blockDim.x + threadIdx.x) * numbers; e < size; e += step) {
        Words words[numbers / 4];
#pragma unroll
        for (int i = 0; i < numbers / 4; i++) {
            unsigned long long counter = e / 4 + i;
            words[i] = philox({uint32_t(counter), uint32_t(counter >> 32), sample + blockIdx.x, 0}, key0, key1);
        }
#pragma unroll
        for (int k = 0; k < numbers; k += V) {
            if (e + k >= size) break;
            Pack<real, V> values = load<real, V>(x + e + k);
#pragma unroll
            for (int v = 0; v < V; v++) {
                bool kept = words[(k + v) / 4].at[(k + v) % 4] >= drop;
                values.at[v] = real(kept ? widen(values.at[v]) * scale : 0);
            }
            store(y + e + k, values);
        }
    }
}
