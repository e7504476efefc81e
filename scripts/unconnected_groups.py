"""Find modules that hold more than one thought: python scripts/unconnected_groups.py [FILE…]

Definitions at the top of a module are connected where one names the other, directly or through
functions, classes and constants of the module. What comes from other modules connects nothing, nor
does a logger or a type variable. Ends with 1 where a module has two groups of LEAST_LINES lines or
more that are not connected, and names both.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "distributions", "launcher", "noise_models", "simenv", "simulators", "testbed")
LEAST_LINES = 60  # of a group: smaller ones are helpers, which a module of their own hides
# Modules that are one thought all the same, with the reason.
ALLOWED = {
    "simenv/model/options.py": "an option is a row of the table and a type of an argument",
}
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | COMPREHENSIONS
NO_THOUGHT = {"getLogger", "TypeVar", "ParamSpec", "TypeVarTuple"}  # calls that make constants
BENCHMARK = "benchmark"  # decorator of an entry in the table of benchmarks, by which they belong


def bound(node: ast.AST) -> set[str]:
    """Return the names that a statement or an expression binds, without those of inner scopes."""
    if isinstance(node, DEFINITIONS):
        return {node.name}
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Load) else {node.id}
    if isinstance(node, ast.arg):
        return {node.arg}
    return set() if isinstance(node, SCOPES) else bound_inside(node)


def bound_inside(node: ast.AST) -> set[str]:
    """Return the names that the parts of a node bind."""
    return {name for each in ast.iter_child_nodes(node) for name in bound(each)}


def note_names(node: ast.AST, names: set[str]) -> None:
    """Add the names that a statement or an expression has from around it."""
    if isinstance(node, ast.Name):
        names.add(node.id)
        return
    inside = set[str]() if isinstance(node, SCOPES) else names
    for each in ast.iter_child_nodes(node):
        note_names(each, inside)
    if inside is not names:
        names |= inside - bound_inside(node)


def is_connecting(statement: ast.stmt) -> bool:
    """Return whether a statement at the top of a module is a part of what the module does."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return False
    return name_of(getattr(getattr(statement, "value", None), "func", None)) not in NO_THOUGHT


def name_of(function: ast.expr | None) -> str:
    """Return the name of what is called, without its module; "": it has none."""
    name: str = getattr(function, "attr", getattr(function, "id", ""))
    return name


def is_benchmark(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return name_of(called) == BENCHMARK


def groups(tree: ast.Module) -> list[tuple[int, list[str]]]:
    """Return the groups of connected definitions, the largest first: the number of lines of each,
    and its names in the order of the text."""
    statements = [each for each in tree.body if is_connecting(each)]
    binds = [bound(each) for each in statements]
    own = set[str]().union(*binds)
    left: dict[int, set[str]] = {}
    for place, statement in enumerate(statements):
        names = set[str]()
        note_names(statement, names)
        left[place] = binds[place] | names & own
        if any(map(is_benchmark, getattr(statement, "decorator_list", ()))):
            left[place].add(BENCHMARK)
    result = []
    while left:
        first, names = left.popitem()
        group = [first]
        while near := [place for place, others in left.items() if others & names]:
            names = names.union(*map(left.pop, near))
            group += near
        lines = sum(num_lines(statements[place]) for place in group)
        result.append((lines, [name for place in sorted(group) for name in sorted(binds[place])]))
    return sorted(result, reverse=True)


def num_lines(statement: ast.stmt) -> int:
    above = [each.lineno for each in getattr(statement, "decorator_list", ())]
    return (statement.end_lineno or statement.lineno) - min(statement.lineno, *above, 10**9) + 1


def unconnected(path: Path) -> list[tuple[int, list[str]]]:
    """Return the groups of LEAST_LINES or more of a module that has several; else none."""
    found = [each for each in groups(ast.parse(path.read_text())) if each[0] >= LEAST_LINES]
    return found if len(found) > 1 else []


def main(files: list[str]) -> int:
    paths = [Path(each).resolve() for each in files]
    paths = paths or [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    found = {path.as_posix().removeprefix(f"{ROOT}/"): unconnected(path) for path in paths}
    bad = {name for name, result in found.items() if result} - ALLOWED.keys()
    for name in sorted(bad):
        print(f"{name}: {len(found[name])} groups of definitions do not refer to one another")
        for lines, names in found[name]:
            print(f"    {lines} lines: {', '.join(names)}")
    stale = [] if files else [name for name in ALLOWED if not found.get(name)]
    for name in stale:
        print(f"{name}: in ALLOWED, and not two groups")
    return int(bool(bad or stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
