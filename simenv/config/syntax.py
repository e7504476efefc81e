"""Syntax of names (environments, pools, workers, keys, applications) and of sizes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from simenv.errors import ConfigError

NAME_RULE = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")


def check_name(name: str, subject: str = "environment") -> str:
    """Return the name if it follows NAME_RULE. Raises ConfigError, which names `subject`."""
    if not NAME_RULE.match(name):
        raise ConfigError(
            f"{subject} name {name[:80]!r} is not allowed",
            hint="a name is a-z, then up to 63 of a-z 0-9 _ . -",
        )
    return name


def nearest(name: str, choices: Iterable[str]) -> str:
    """Hint for an unknown word: the most similar choice, else all choices."""
    candidates = tuple(choices)
    matches = difflib.get_close_matches(name, candidates, 1)
    return f"did you mean `{matches[0]}`?" if matches else f"known: {', '.join(candidates)}"


MAX_BYTES = 2**60
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?)?B?\Z", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def size(value: object, subject: str) -> int:
    """Parse a size such as `512MiB`, `2GB`, `1.5G`, `4096` as bytes. K, M, G and T are powers of
    1,024, as in sites' documentation. Raises ConfigError, which names `subject`."""
    if isinstance(value, int) and not isinstance(value, bool):
        count = float(value)
    else:
        result = _SIZE.match(value.strip()) if isinstance(value, str) else None
        if result is None:
            raise ConfigError(
                f"{subject} = {str(value)[:80]!r} is not a size", hint="512MiB, 2GiB, or bytes"
            )
        count = float(result[1]) * 1024 ** _POWERS.get((result[2] or "")[:1].lower(), 0)
    if not 0 <= count <= MAX_BYTES:
        raise ConfigError(f"{subject} = {str(value)[:80]} is outside 0 .. 1024 PiB")
    return int(count)
