"""Console script. Invariant: it imports nothing before an interrupt is handled."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
COMPLETE = "_SIMENV_COMPLETE"  # set by the scripts that typer installs in a shell


def main() -> None:
    """Run `simenv.cli.app.main`, whose import takes a moment; or complete the line of a shell."""
    try:
        if COMPLETE in os.environ:
            from simenv.cli import completion

            sys.exit(completion.answer())
        from simenv.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
