"""Fast versions of the ops in `minidl/ops/`: the same file and function names, the same arguments and results."""
