"""Array code, one op per file: slow enough to read, and the specification of every kernel.

Each body runs on NumPy and on CuPy. A kernel in `minidl.kernels` with the same file and function name does the same
faster; the tests hold the two together.
"""
