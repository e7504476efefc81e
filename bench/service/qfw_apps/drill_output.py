"""Lines for the drill that started this application."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn


def print_record(kind: str, **fields: Any) -> None:
    """Print one line that the drill reads."""
    print("@@@ " + json.dumps({"kind": kind, **fields}), flush=True)
    sys.stdout.flush()


def run_rows(rows: Iterable[Callable[[], None]]) -> NoReturn:
    """Run each row and print how it ended: `why` is empty where it passes.

    The function ends the process at once, since threads of the host do not end by themselves.
    """
    for row in rows:
        try:
            row()
            print_record("row", name=row.__name__, why="")
        except BaseException as error:  # noqa: BLE001 - a row that fails says why
            print_record("row", name=row.__name__, why=f"{type(error).__name__}: {error}"[:300])
    os._exit(0)
