// What follows a matrix product: a product (rows, W, C) goes into C of the `pixel` channels of an array
// (rows, W, pixel), from the first on: those of a group.
#include "minidl.cuh"

// y = product + bias, or max(that, 0) where relu is set; y may be the product itself
template <typename real, int V>
__global__ void epilogue(const real* product, const real* __restrict__ bias, real* y, int W, int C, int first,
                         int pixel, bool relu) {
    each_pixel(1, W, C, V, [&](int row, int, int w, int c) {
        long long place = (long long)row * W + w;
        Pack<real, V> values = load<real, V>(product + place * C + c), added = {};
        if (bias) added = load<real, V>(bias + first + c);
#pragma unroll
        for (int v = 0; v < V; v++) {
            auto value = widen(values.at[v]) + widen(added.at[v]);
            values.at[v] = real(relu && value < 0 ? 0 : value);  // a NaN stays
        }
        store(y + place * pixel + first + c, values);
    });
}

// sums += product
template <typename real>
__global__ void accumulate(const real* __restrict__ product, wide<real>* __restrict__ sums, int W, int C, int first,
                           int pixel) {
    each_pixel(1, W, C, 1, [&](int row, int, int w, int c) {
        long long place = (long long)row * W + w;
        sums[place * pixel + first + c] += widen(product[place * C + c]);
    });
}
