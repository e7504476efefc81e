"""Bounds on the length of values from outside, applied while decoding.

The bounds stop the decoder before it builds values that a rule would refuse afterwards. They are
wider than the rules, whose errors name the effective limit. Bytes need no bound of their own: the
size of a message is bounded.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.errors import OptionError

Text = Annotated[str, msgspec.Meta(max_length=16_384)]
FEW = msgspec.Meta(max_length=256)  # length of lists of names: outputs, options, preferences


def check_printable(name: str, text: str) -> None:
    """Check a text that other users read. Raises OptionError for control characters, which a
    terminal or a log would obey."""
    if not text.isprintable():
        escaped = text.encode("unicode_escape").decode()[:80]
        raise OptionError(
            f"{name} '{escaped}' has characters that cannot be printed",
            hint="letters, digits, spaces and signs, in any script; no line ends, no escapes",
        )
