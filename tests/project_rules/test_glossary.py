"""The glossary: a table of terms, each with its meaning and a reference."""

from __future__ import annotations

import re
from pathlib import Path

GLOSSARY = Path(__file__).parents[2] / "docs/glossary.md"
REFERENCE = re.compile(r"\[[^\]]+\]\(https://[^)\s]+\)")


def rows() -> list[list[str]]:
    """Return the cells of each row of the table."""
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_each_term_has_a_meaning_and_a_linked_reference() -> None:
    for row in rows():
        assert len(row) == 3, row
        assert all(row), row
        assert REFERENCE.fullmatch(row[2]), row


def test_terms_are_unique_and_sorted() -> None:
    terms = [row[0].casefold() for row in rows()]
    assert len(terms) >= 80
    assert terms == sorted(set(terms))
