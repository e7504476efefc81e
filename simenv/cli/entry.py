"""Console script. Invariant: it imports nothing before an interrupt is handled."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run `simenv.cli.app.main`, whose import takes a moment."""
    try:
        from simenv.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
