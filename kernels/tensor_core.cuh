// Tensor cores: how the 32 lanes of a warp multiply small matrices together, and how tiles come into shared memory.
//
// The product D += A·B has A of 16 rows and B of 8 columns; along K both are 32 bytes: 16 halves, or 8 floats whose
// mantissa is rounded to 10 bits (TF32). Sums are floats. Each lane holds a part of each matrix, in words of 4 bytes
// along K. With lane = 4·g + t (g < 8, t < 4),
//
//   a[0..3] = words A(g, t), A(g+8, t), A(g, t+4), A(g+8, t+4)      b[0..1] = words B(t, g), B(t+4, g)
//   d[0..3] = D(g, 2t), D(g, 2t+1), D(g+8, 2t), D(g+8, 2t+1)
//
// See NVIDIA's PTX manual: mma.m16n8k16, mma.m16n8k8, ldmatrix, cp.async.
#pragma once
#include "minidl.cuh"

template <typename real> constexpr bool IS_HALF = sizeof(real) == 2;

__device__ __forceinline__ unsigned lane() { return threadIdx.x % 32; }

// A float's bits, with the mantissa rounded to 10 bits, ties away from 0
__device__ __forceinline__ unsigned tf32(unsigned bits) {
#ifdef CUDA_SHIM
    return (bits & 0x7fffffff) > 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;  // a NaN stays one
#else
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
#endif
}

#ifdef CUDA_SHIM
template <typename real> void mma(float (&d)[4], const unsigned (&a)[4], const unsigned* b) {
    constexpr int PER_WORD = 4 / sizeof(real);
    struct Lane { float a[4][PER_WORD], b[2][PER_WORD]; } mine;
    for (int part = 0; part < PER_WORD; part++) {
        auto number = [&](const unsigned& word) { return widen(reinterpret_cast<const real*>(&word)[part]); };
        for (int r = 0; r < 4; r++) mine.a[r][part] = number(a[r]);
        for (int r = 0; r < 2; r++) mine.b[r][part] = number(b[r]);
    }
    auto warp = shim::of_warp(mine);
    unsigned g = lane() / 4, t = lane() % 4;
    for (unsigned e = 0; e < 4; e++) {
        double sum = d[e];
        for (unsigned word = 0; word < 8; word++)
            for (int part = 0; part < PER_WORD; part++)
                sum += (double)warp[4 * g + word % 4].a[word / 4 * 2 + e / 2][part] *
                       warp[4 * (2 * t + e % 2) + word % 4].b[word / 4][part];
        d[e] = (float)sum;
    }
}
#else
#define MMA(type, shape, kind)                                                                                     \
    template <>                                                                                                    \
    __device__ __forceinline__ void mma<type>(float (&d)[4], const unsigned (&a)[4], const unsigned* b) {          \
        asm volatile("mma.sync.aligned." shape ".row.col.f32." kind "." kind ".f32 "                               \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                             \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                          \
    }
template <typename real> __device__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned* b);
MMA(__half, "m16n8k16", "f16")
MMA(__nv_bfloat16, "m16n8k16", "bf16")
MMA(float, "m16n8k8", "tf32")
#endif

// Four matrices of 8 rows of 16 bytes: lane l says where row l % 8 of matrix l / 8 begins, and gets of matrix m word t
// of row g; or, TRANSPOSED, the halves (2t, g) and (2t+1, g).
template <bool TRANSPOSED> __device__ __forceinline__ void ldmatrix(unsigned (&words)[4], const void* row) {
#ifdef CUDA_SHIM
    auto rows = shim::of_warp(row);
    unsigned g = lane() / 4, t = lane() % 4;
    for (int m = 0; m < 4; m++) {
        if (!TRANSPOSED) words[m] = static_cast<const unsigned*>(rows[8 * m + g])[t];
        auto half = [&](unsigned r) -> unsigned { return static_cast<const uint16_t*>(rows[8 * m + r])[g]; };
        if (TRANSPOSED) words[m] = half(2 * t) | half(2 * t + 1) << 16;
    }
#else
    unsigned from = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(from) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(from) : "memory");
#endif
}

// Four words of 16 rows of A, or columns of B, from `edge` on and 32 bytes from k, out of a tile in shared memory whose
// lines of LD numbers run along K or across it: a[0..3], or b[0..1] of 8 columns and then b[0..1] of the next 8, as an
// instruction takes its words from neighbouring registers.
template <bool OF_A, bool ALONG_K, int LD, typename real>
__device__ __forceinline__ void fragment(unsigned (&words)[4], const real* tile, int edge, int k) {
    static_assert(LD * sizeof(real) % 16 == 0, "ldmatrix reads rows of 16 bytes that lie at multiples of 16");
    auto second_edge = [](int word) { return OF_A ? word % 2 : word / 2; };
    auto second_k = [](int word) { return OF_A ? word / 2 : word % 2; };
    constexpr int HALF = 16 / sizeof(real);  // of what lies along K
    int l = lane(), word = l / 8;
    if constexpr (ALONG_K)
        ldmatrix<false>(words, tile + (edge + second_edge(word) * 8 + l % 8) * LD + k + second_k(word) * HALF);
    else if constexpr (IS_HALF<real>)
        ldmatrix<true>(words, tile + (k + second_k(word) * 8 + l % 8) * LD + edge + second_edge(word) * 8);
    else
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const real* from = tile + (k + second_k(r) * 4 + l % 4) * LD + edge + second_edge(r) * 8 + l / 4;
            words[r] = *reinterpret_cast<const unsigned*>(from);
        }
    if constexpr (!IS_HALF<real>)
#pragma unroll
        for (int r = 0; r < 4; r++) words[r] = tf32(words[r]);
}

// V numbers on their way from global to shared memory, or zeros. They are there, for this thread, after a
// wait_for_copies that does not leave out their group.
template <int V, typename real> __device__ __forceinline__ void copy_async(real* to, const real* from, bool zero) {
    constexpr int BYTES = V * sizeof(real);
    if constexpr (BYTES < 4) {
        *to = zero ? real(0.f) : *from;
    } else {
#ifdef CUDA_SHIM
        shim::copy_async(to, from, BYTES, zero);
#else
        unsigned there = (unsigned)__cvta_generic_to_shared(to);
        if constexpr (BYTES == 16)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                         :: "r"(there), "l"(from), "r"(zero ? 0 : 16) : "memory");
        else
            asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                         :: "r"(there), "l"(from), "n"(BYTES), "r"(zero ? 0 : BYTES) : "memory");
#endif
    }
}

// Closes a group of copies.
__device__ __forceinline__ void commit_copies() {
#ifdef CUDA_SHIM
    shim::commit_copies();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for this thread's copies, but for those of the newest groups.
template <int NEWEST> __device__ __forceinline__ void wait_for_copies() {
#ifdef CUDA_SHIM
    shim::wait_for_copies(NEWEST);
#else
    asm volatile("cp.async.wait_group %0;" :: "n"(NEWEST) : "memory");
#endif
}
