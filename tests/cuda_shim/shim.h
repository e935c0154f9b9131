// Runs unchanged CUDA kernels on a CPU: what a kernel sees of CUDA. What runs it is in shim.cpp.
#pragma once
#define CUDA_SHIM 1
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <cuda_bf16.h>  // NVIDIA's own conversions for the host
#include <cuda_fp16.h>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

using std::max;
using std::min;

#ifdef SHIM_THREADS
extern thread_local uint3 threadIdx;
#else
extern uint3 threadIdx;
#endif
extern uint3 blockIdx;
extern dim3 blockDim, gridDim;

void __syncthreads();
void __syncwarp(unsigned mask = ~0u);

namespace shim {
// Shared memory of the block at work: by the place of its declaration, and the dynamic part as −1.
void* shared(int id, size_t bytes);
extern size_t dynamic_bytes;
extern char lanes[2][1024][64];
extern unsigned calls[1024];
unsigned linear();  // the number of this thread in its block

// What each lane of this warp brings. Calls take turns with two places, so that nobody writes where another still reads.
template <class V> std::array<V, 32> of_warp(const V& mine) {
    unsigned me = linear();
    auto& place = lanes[calls[me]++ % 2];
    static_assert(sizeof(V) <= sizeof(place[0]));
    memcpy(place[me], &mine, sizeof(V));
    __syncwarp();
    std::array<V, 32> all;
    for (unsigned lane = 0; lane < 32; lane++) memcpy(&all[lane], place[(me & ~31u) + lane], sizeof(V));
    return all;
}
template <class V> V exchanged(V value, unsigned lane) { return of_warp(value)[lane & 31]; }
inline unsigned lane() { return linear() & 31; }

// cp.async: copies lie in groups until this thread waits for all but the newest. In one order of threads a copy is made
// at once, in the others when it is waited for: a kernel that relies on either has a race.
void copy_async(void* to, const void* from, size_t bytes, bool zero);
void commit_copies();
void wait_for_copies(size_t newest);

// An argument: a number or a struct as it lies, or an array, of which only so many bytes may be touched.
struct Argument {
    void* at;
    size_t bytes;  // of the array; 0 for a number
};
// Runs kernel(values), one pointer a parameter, for all threads; what went wrong, or null.
const char* launch(void (*kernel)(void**), Argument*, int, const unsigned* grid, const unsigned* block, size_t shared);

template <class... P, size_t... I> void call(void (*kernel)(P...), void** values, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<P>*>(values[I])...);
}
template <auto kernel> struct Launcher;
template <class... P, void (*kernel)(P...)> struct Launcher<kernel> {
    static void run(void** values) { call(kernel, values, std::index_sequence_for<P...>()); }
    static const char* launch(Argument* arguments, const unsigned* grid, const unsigned* block, size_t shared) {
        return shim::launch(run, arguments, sizeof...(P), grid, block, shared);
    }
};
}  // namespace shim

template <class V> V __shfl_down_sync(unsigned, V v, unsigned by) {
    unsigned to = shim::lane() + by;
    return shim::exchanged(v, to < 32 ? to : shim::lane());
}
template <class V> V __shfl_xor_sync(unsigned, V v, unsigned mask) { return shim::exchanged(v, shim::lane() ^ mask); }
template <class V> V __shfl_sync(unsigned, V v, unsigned from) { return shim::exchanged(v, from); }
template <class V> V __ldg(const V* p) { return *p; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }

#define SHARED(type, name, dimensions)     \
    using Shared_##name = type dimensions; \
    Shared_##name& name = *static_cast<Shared_##name*>(shim::shared(__COUNTER__, sizeof(Shared_##name)))
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(shim::shared(-1, shim::dynamic_bytes))
