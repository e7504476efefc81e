"""Layout of text for a terminal: lines wrapped at words, and tables without columns that do not
fit.

Pure: widths in, lines out. Escape codes in a text count as columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAST_TEXT = 12  # least number of columns for wrapped text
_PIECES = re.compile(r"\S+|\s+")


def wrap(text: str, width: int, indent: int = 0) -> list[str]:
    """Return `text` in lines of at most `width` columns, the second and later ones indented.

    Lines break at spaces, and inside a word only if the word alone is too wide. If the indent
    leaves less than LEAST_TEXT columns, lines are wider than `width`.
    """
    lines: list[str] = []
    line, gap = "", ""
    for piece in _PIECES.findall(text):
        limit = max(width - (indent if lines else 0), LEAST_TEXT)
        if piece.isspace():
            gap = piece
            continue
        if line and len(line) + len(gap) + len(piece) > limit:
            lines.append(line)
            line, gap = "", ""
            limit = max(width - indent, LEAST_TEXT)
        line += gap + piece
        gap = ""
        while len(line) > limit:
            lines.append(line[:limit])
            line = line[limit:]
            limit = max(width - indent, LEAST_TEXT)
    lines.append(line)
    return [lines[0], *(" " * indent + each for each in lines[1:])]


def fitting(widths: Sequence[int], optional: Sequence[int], width: int, gap: int) -> list[int]:
    """Return the columns of a table to show in `width`, by their indices.

    `optional`: 0 for a column that is always shown; of the others the highest is left out first.
    The last column shown may be wrapped down to LEAST_TEXT, so it counts as no wider than that.
    """
    shown = list(range(len(widths)))
    while True:
        *fixed, last = [widths[k] for k in shown]
        if sum(fixed) + gap * len(fixed) + min(last, LEAST_TEXT) <= width:
            return shown
        droppable = [k for k in shown if optional[k]]
        if not droppable or len(shown) == 1:
            return shown
        shown.remove(max(droppable, key=lambda k: optional[k]))
