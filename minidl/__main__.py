"""The `minidl` command, also as `python -m minidl`."""

import sys


def main() -> None:
    """Run the command line; an interruption while it is still being imported ends as it would later."""
    try:
        from minidl.cli import main as run

        run()
    except KeyboardInterrupt:
        print("minidl: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
