"""Syntax trees of the source files, parsed once for all rules that look at them."""

import ast
import functools
from pathlib import Path


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of the module at `path`; nobody changes it."""
    return ast.parse(path.read_text())
