"""The console script. Invariant: it imports nothing before it can be interrupted tidily."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """`simenv.cli.app.main`, which takes a moment to load."""
    try:
        from simenv.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
