"""`python -m minidl` is the `minidl` command."""

from minidl.cli import main

main()
