"""No import cycles inside a package, one class to a name, few parameters of a function, and few
attributes and methods of a class."""

from __future__ import annotations

import ast
import collections
import functools
from pathlib import Path

import pytest
from source_trees import parsed

from simenv.service.journal import tables

ROOT = Path(__file__).parents[2]
PRODUCT = ("launcher", "simenv", "simulators")
# Without cycles, type-only and local imports included.
PACKAGES = ("launcher", "noise_models", "simenv", "simulators")
SQL_OUTSIDE = {  # modules with statements or connections outside simenv.service.journal
    "simenv/service/recovery/repair.py",
    "simenv/service/results/retention.py",
}
SHARED_CLASS_NAMES = {  # public names of more than one class
    "Completion",  # of the client's Python interface, and the message that it comes from
    "Connection",  # of the transport, and of DEFw in the conformance kit
    "Event",  # of an environment, and DEFw's own, whose name is given
    "Machine",  # several QPUs that a program describes, and the one that a worker holds
    "Noise",  # a noise model by the name of its kind, and as a task carries it
    "Program",  # the circuit that is sent, and what the engine statevector makes of it
    "QPM",  # the name that DEFw loads, and its implementation
    "Request",  # of a host to a QPM, and of a worker to an engine
}
MOST_PARAMETERS = 12  # of a function; kernels take records (`simulators.compiler.kernel.record`)
MOST_ATTRIBUTES = 20  # of a class, those of its bases not counted
MOST_METHODS = 30
DEFENDED_CLASSES = {  # larger ones, each with the reason
    "Environment": "the public face: a session, caches, and one method for each request that users"
    " know by its name from the documentation; what has settings to change is a part of it",
    "Result": "all outputs of a task as users read them: properties of one decoded result",
    "Scheduler": "one method for each event, bound to the state, its only attribute",
    "Task": "a future of concurrent.futures, whose interface is half of it",
}
STATEMENTS = ("insert into", "insert or ", "delete from", "create table")


def modules(package: str) -> dict[str, Path]:
    """Paths of a package's modules, by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """The modules of the product."""
    paths = [path for package in PRODUCT for path in modules(package).values()]
    return {path.relative_to(ROOT): parsed(path) for path in paths}


def imports(package: str) -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports, anywhere in its text."""
    result = modules(package)
    table: dict[str, set[str]] = {}
    for name, path in result.items():
        targets = table[name] = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    targets.add(full if full in result else node.module)
            elif isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
        targets &= set(result) - {name}
    return table


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_no_import_cycles(package: str) -> None:
    left = imports(package)
    while free := {name for name, targets in left.items() if not targets & set(left)}:
        for name in free:
            del left[name]
    assert not left, f"in or above a circle: {sorted(left)}"


def test_public_classes_have_different_names() -> None:
    count = collections.Counter(
        node.name
        for tree in trees().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, number in count.items() if number > 1} <= SHARED_CLASS_NAMES


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    args = function.args
    named = len(args.posonlyargs) + len(args.args) + len(args.kwonlyargs)
    return named + (args.vararg is not None) + (args.kwarg is not None)


def test_functions_have_at_most_twelve_parameters() -> None:
    longer = {
        f"{path.relative_to(ROOT)}:{node.name}"
        for package in PACKAGES
        for path in modules(package).values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if num_parameters(node) > MOST_PARAMETERS
    }
    assert not longer, "take parameters that belong together as one value"


def is_value(node: ast.ClassDef) -> bool:
    """Whether a class has no state of its own that changes, and a format or a vocabulary decides
    its fields: an enum, or a frozen Struct or dataclass."""
    calls = [each for each in node.decorator_list if isinstance(each, ast.Call)]
    keywords = [*node.keywords, *(keyword for call in calls for keyword in call.keywords)]
    is_enum = any(ast.unparse(base).startswith("enum.") for base in node.bases)
    return is_enum or any(each.arg == "frozen" for each in keywords)


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Names of the attributes that a class declares, or sets in one of its methods."""
    kinds = "ClassVar", "InitVar"
    declared = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if not ast.unparse(each.annotation).startswith(kinds)
    }
    return declared | {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
        if isinstance(each.value, ast.Name) and each.value.id == "self"
    }


def methods_of(node: ast.ClassDef) -> set[str]:
    """Names of the methods and properties of a class, and of what a call in its body made."""
    functions = {
        each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return functions | {
        target.id
        for each in node.body
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.Call)
        for target in each.targets
        if isinstance(target, ast.Name)
    }


def test_classes_have_at_most_20_attributes_and_30_methods() -> None:
    """Divide a larger one by who owns what. A class that is defended and needs it no more leaves
    the list."""
    classes = [
        node
        for package in PACKAGES
        for path in modules(package).values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
    ]
    larger = {
        node.name
        for node in classes
        if (len(attributes_of(node)) > MOST_ATTRIBUTES and not is_value(node))
        or len(methods_of(node)) > MOST_METHODS
    }
    assert larger == DEFENDED_CLASSES.keys()


def has_sql(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "sqlite3" for alias in node.names):
            return True
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text.lower().lstrip().startswith(STATEMENTS):
            return True
    return False


def test_databases_are_opened_by_the_journal_package_alone() -> None:
    """Jobs of all interfaces are in the journal: no process has a database of its own."""
    openers = {
        str(path)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "connect"
        if isinstance(node.value, ast.Name) and node.value.id in ("sqlite3", "psycopg")
        if not path.is_relative_to("simenv/service/journal")
    }
    assert not openers
    jobs = [table for table in tables.TABLES if " from job" in table.query]
    assert jobs == [tables.JOB, tables.JOB_BLOB]


def test_sql_is_in_the_journal_package_alone() -> None:
    names = {
        str(path)
        for path, tree in trees().items()
        if not path.is_relative_to("simenv/service/journal") and has_sql(tree)
    }
    assert names == SQL_OUTSIDE, "take a module off the list when its SQL has moved; add none"
