"""Where the lanes of a warp hold what tensor cores multiply: tensor_core.cuh on the shim against NVIDIA's own tables.

The tables are those of CuTe (NVIDIA/cutlass, include/cute/atom): a layout is a shape and a stride, either of them for
(lane, what it holds), whose digits, the first the fastest, times the strides give a place. So the shim, whose author
wrote the kernels too, is held against numbers from another hand.
"""

from __future__ import annotations

from math import prod

import cuda_shim
import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed", exc_type=ImportError)
pytestmark = pytest.mark.skipif(cuda_shim.missing() is not None, reason=str(cuda_shim.missing()))

DTYPES = {"__half": np.float16, "__nv_bfloat16": ml_dtypes.bfloat16, "float": np.float32}


def layout(shape, stride):
    """The place of what each lane holds: (lanes, numbers of one)."""

    def places(digits, strides):
        numbers = np.arange(prod(digits))
        return sum(numbers // prod(digits[:d]) % digits[d] * strides[d] for d in range(len(digits)))

    (lanes, held), (along_lanes, along_held) = shape, stride
    return places(lanes, along_lanes)[:, None] + places(held, along_held)


# mma_traits_sm80.hpp: SM80_16x8x16_F32F16F16F32_TN and the same with BF16, SM80_16x8x8_F32TF32TF32F32_TN. Places are
# row + rows·k in A (16 rows) and B (8), row + 16·column in D.
A_OF_HALVES = layout(((4, 8), (2, 2, 2)), ((32, 1), (16, 8, 128)))
B_OF_HALVES = layout(((4, 8), (2, 2)), ((16, 1), (8, 64)))
A_OF_FLOATS = layout(((4, 8), (2, 2)), ((16, 1), (8, 64)))
B_OF_FLOATS = layout(((4, 8), (2,)), ((8, 1), (32,)))
D = layout(((4, 8), (2, 2)), ((32, 1), (16, 8)))
# copy_traits_sm75.hpp: SM75_U32x4_LDSM_N, SM75_U16x8_LDSM_T. Places are bits of the rows that the lanes point to.
POINTED_TO = layout(((32,), (128,)), ((128,), (1,)))
LOADED = layout(((32,), (32, 4)), ((32,), (1, 1024)))
LOADED_TRANSPOSED = layout(((4, 8), (16, 2, 4)), ((256, 16), (1, 128, 1024)))


def run(kernel, *arrays):
    assert cuda_shim.by_hand("tensor_core.cuh", kernel, 32, *arrays) is None


def held(matrix, places):
    """The words of each lane that holds the matrix, column by column, at these places."""
    return np.ascontiguousarray(matrix.ravel("F")[places]).view(np.uint32)


def of_products(real):
    """K, and the places in A and B."""
    return (8, A_OF_FLOATS, B_OF_FLOATS) if real == "float" else (16, A_OF_HALVES, B_OF_HALVES)


@pytest.mark.parametrize("real", DTYPES)
def test_mma(real):
    K, in_a, in_b = of_products(real)
    a, b = (np.random.default_rng(rows).integers(-8, 9, (rows, K)).astype(DTYPES[real]) for rows in (16, 8))
    d = np.zeros((32, 4), np.float32)
    kernel = """__global__ void f(const unsigned (*a)[4], const unsigned (*b)[2], float (*d)[4]) {
        mma<REAL>(d[lane()], a[lane()], b[lane()]);
    }"""
    run(kernel.replace("REAL", real), held(a, in_a), held(b, in_b), d)
    found = np.empty(16 * 8, np.float32)
    found[D] = d
    np.testing.assert_array_equal(found.reshape((16, 8), order="F"), a.astype(float) @ b.astype(float).T)


@pytest.mark.parametrize(("transposed", "loaded"), [("false", LOADED), ("true", LOADED_TRANSPOSED)])
def test_ldmatrix(transposed, loaded):
    rows = np.arange(32 * 8, dtype=np.uint16).reshape(32, 8)
    bits = np.empty(32 * 128, np.uint8)
    bits[POINTED_TO] = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")
    words = np.zeros((32, 4), np.uint32)
    kernel = """__global__ void f(const uint16_t (*rows)[8], unsigned (*words)[4]) {
        SHARED(uint16_t, tile, [32][24]);
        for (int i = 0; i < 8; i++) tile[31 - lane()][i] = rows[lane()][i];
        __syncwarp();
        ldmatrix<TRANSPOSED>(words[lane()], tile[31 - lane()]);
    }"""
    run(kernel.replace("TRANSPOSED", transposed), rows, words)
    expected = np.packbits(bits[loaded], axis=1, bitorder="little").view(np.uint32)
    np.testing.assert_array_equal(words, expected)


@pytest.mark.parametrize("along_k", [True, False])
@pytest.mark.parametrize("real", DTYPES)
def test_fragments(real, along_k):
    """16 rows of A, and twice 8 columns of B, out of the middle of a tile."""
    (K, in_a, in_b), edge = of_products(real), 16
    lines, width = (48, 2 * K) if along_k else (2 * K, 48)
    padded = width + 16 // np.dtype(DTYPES[real]).itemsize
    numbers = np.arange(lines * padded, dtype=np.float32 if real == "float" else np.uint16)
    tile = numbers.view(DTYPES[real]).reshape(lines, padded)
    of_a, of_b = np.zeros((2, 32, 4), np.uint32)
    kernel = f"""__global__ void f(const {real}* numbers, unsigned (*of_a)[4], unsigned (*of_b)[4]) {{
        SHARED({real}, tile, [{lines} * {padded}]);
        for (int i = lane(); i < {lines} * {padded}; i += 32) tile[i] = numbers[i];
        __syncwarp();
        constexpr bool ALONG_K = {str(along_k).lower()};
        fragment<true, ALONG_K, {padded}>(of_a[lane()], tile, {edge}, {K});
        fragment<false, ALONG_K, {padded}>(of_b[lane()], tile, {edge}, {K});
    }}"""
    run(kernel, tile, of_a, of_b)
    operand = (tile if along_k else tile.T)[edge : edge + 16, K : 2 * K]
    np.testing.assert_array_equal(of_a, held(operand, in_a))
    np.testing.assert_array_equal(of_b, np.hstack([held(columns, in_b) for columns in (operand[:8], operand[8:])]))
