"""Lines for the drill that started this application."""

import json
import sys
from typing import Any


def say(kind: str, **more: Any) -> None:
    """One line that the drill reads."""
    print("@@@ " + json.dumps({"kind": kind, **more}), flush=True)
    sys.stdout.flush()
