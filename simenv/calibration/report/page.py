"""One HTML page of scores, with its plots inside."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from simenv import files
from simenv.calibration.report import plots
from simenv.calibration.report.tables import HEADER, as_values, cells
from simenv.calibration.score.score import Score

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; font-size: 13px; margin: 0.8rem 0 }
th, td { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #dfe5e9 }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
img { max-width: 100%; margin: 0.5rem 0 }
.missed { color: #b00020 }
"""


class Section(msgspec.Struct, frozen=True, eq=False):
    """One data set of a page. `notes`: paragraphs above the table."""

    title: str
    score: Score
    notes: tuple[str, ...] = ()


def draw(title: str, score: Score, folder: Path) -> list[Path]:
    """Write the plots of a score as PNG files; returns them."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in title)
    results = []
    for name, function in (
        ("comparison", plots.comparison),
        ("parity", plots.parity),
        ("volumetric", plots.volumetric),
        ("drift", plots.drift),
    ):
        path = folder / f"{stem}-{name}.png"
        shown = score.part(test=True) if name == "comparison" else score
        if not shown.rows:
            shown = score
        if function(title, shown, path) is not False:
            results.append(path)
    return results


def write(
    path: Path,
    heading: str,
    sections: Sequence[Section],
    introduction: Sequence[str] = (),
    goals: Sequence[tuple[str, str, str, bool]] = (),
) -> None:
    """Write the page by rename. `goals`: (what, value, goal, whether it is met)."""
    parts = [f"<h1>{html.escape(heading)}</h1>", *_paragraphs(introduction)]
    if goals:
        rows = [(what, value, goal, "met" if met else "missed") for what, value, goal, met in goals]
        parts.append(_table(("figure", "value", "goal", ""), rows))
    with tempfile.TemporaryDirectory() as folder:
        for section in sections:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
            parts += _paragraphs(section.notes)
            parts.append(_table(HEADER, cells(as_values(section.score))))
            for image in draw(section.title, section.score, Path(folder)):
                data = base64.b64encode(image.read_bytes()).decode()
                parts.append(
                    f'<img alt="{html.escape(image.stem)}" src="data:image/png;base64,{data}">'
                )
    body = "\n".join(parts)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(heading)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    with files.replacing(path, mode=0o644) as out:
        out.write(text.encode())


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(text)}</p>" for text in texts]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        kind = ' class="missed"' if row[-1] == "missed" else ""
        lines.append(
            f"<tr{kind}>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        )
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "</table>"
