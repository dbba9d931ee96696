"""``python -m anyload``, which the command ``anyload`` is too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, which Ctrl-C ends quietly even while it is being imported."""
    try:
        from .cli import main as run

        sys.exit(run())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
