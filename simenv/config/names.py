"""The one rule for names of environments, pools, workers, keys and applications."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from simenv.errors import ConfigError

NAME_RULE = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")


def check_name(name: str, what: str = "environment") -> str:
    """The one rule for names; ConfigError otherwise."""
    if not NAME_RULE.match(name):
        raise ConfigError(
            f"{what} name {name[:80]!r} is not allowed",
            hint="a name is a-z, then up to 63 of a-z 0-9 _ . -",
        )
    return name


def nearest(word: str, known: Iterable[str]) -> str:
    """The way out where a word is not one of those known."""
    words = tuple(known)
    near = difflib.get_close_matches(word, words, 1)
    return f"did you mean `{near[0]}`?" if near else f"known: {', '.join(words)}"
