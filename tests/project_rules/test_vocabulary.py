"""Identifiers and packages follow the glossary and the rules of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import collections
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_trees import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = ("launcher", "simenv", "simulators")
MAX_MODULES = 12  # of one folder
LARGE_FOLDERS = {
    "simenv/frontends/qfw",  # one module for each part of DEFw's interface
    "simenv/qpm_check/checks",  # one module for each group of promises
}
# Words of earlier versions; docs/glossary.md has the present terms. Each is banned as a whole
# identifier: name, attribute, parameter, function or class.
BANNED = frozenset(
    [
        "Beat",
        "Books",
        "Crew",
        "Daemon",
        "Desk",
        "Doors",
        "Hands",
        "Inquiry",
        "Intake",
        "Keeping",
        "Ledgers",
        "Sheet",
        "Shelf",
        "Shelves",
        "_beyond",
        "_complaints",
        "_desk",
        "_hands",
        "_keeping",
        "_shelf",
        "_told_all",
        "_unheard",
        "_unsaid",
        "blindness",
        "books",
        "bury",
        "copier",
        "ghosts",
        "give_way",
        "hands",
        "hangs_on_angles",
        "hurries",
        "inquiry",
        "intake",
        "keeping",
        "obey",
        "own_seat",
        "put_aside",
        "rank_told",
        "reserving",
        "run_dry",
        "see_off",
        "size_told",
        "steer",
        "steered_rows",
        "unkeep",
        "why_full",
    ]
)
VAGUE = frozenset(  # say what the value is: result, args, built, cache, local, first, full, ids
    [
        "found",
        "told",
        "made",
        "given",
        "known",
        "here",
        "one",
        "whole",
        "many",
        "most",
        "words",
        "numbers",
    ]
)
PRONOUNS = {  # a docstring that begins with one does not say what it is about
    *("Are", "As", "By", "Can", "Does", "For", "From", "Has", "How", "If", "In", "Is", "It", "Its"),
    *("Of", "Once", "Only", "Says", "So", "That", "Their", "Them", "Then", "There", "They"),
    *("Those", "To", "Was", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why"),
}
VAGUE_FIELDS = {  # of stored and sent values, whose names are frozen, and a module of Python
    "most": "workers of a pool",
    "words": "m.Cancelled, PerfFinding, and answers that `qpm diff` prints",
    "numbers": "numbers.Integral",
}
VAGUE_MODULES = {
    Path(name)
    for name in (
        "simenv/cli/admin/pools_nodes.py",
        "simenv/cli/observe/listings.py",
        "simenv/cli/profiling/command.py",
        "simenv/cli/profiling/findings.py",
        "simenv/cli/qpm_diff/compare.py",
        "simenv/cli/qpm_diff/observe.py",
        "simenv/cli/qpm_diff/values.py",
        "simenv/client/connection/session.py",
        "simenv/client/environment.py",
        "simenv/model/views.py",
        "simenv/qpm_check/fake_defw/wire.py",
        "simenv/service/control/admin_commands.py",
        "simenv/service/control/administration.py",
        "simenv/service/queries/handlers.py",
        "simenv/wire/messages/admin.py",
        "simenv/wire/messages/client.py",
    )
}
ONE_SENTENCE = {
    ("simenv", name)
    for name in ("config", "model", "qpm_check", "result_files", "service", "wire", "worker")
}
SQL_OUTSIDE = {  # modules with statements or connections outside simenv.service.journal
    "simenv/service/control/policies.py",
    "simenv/service/queries/offline_journal.py",
    "simenv/service/recovery/journal_choice.py",
    "simenv/service/recovery/damaged_results.py",
    "simenv/service/results/event_retention.py",
}
SHARED_CLASS_NAMES = {  # public names of more than one class
    "Completion",  # of the client's Python interface, and the message that it comes from
    "Connection",  # of the transport, and of DEFw in the conformance kit
    "Event",  # of an environment, and DEFw's own, whose name is given
    "Noise",  # a noise model by the name of its kind, and as a task carries it
    "Program",  # the circuit that is sent, and what the engine statevector makes of it
    "QPM",  # the name that DEFw loads, and its implementation
    "Request",  # of a host to a QPM, and of a worker to an engine
}
_STATEMENTS = ("insert into", "insert or ", "delete from", "create table")


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """The modules of the product."""
    return {
        path.relative_to(ROOT): parsed(path)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@functools.cache
def watched() -> list[tuple[Path, str, int]]:
    """Identifiers that are banned or vague, each with its module and line."""
    return [
        (path, name, line)
        for path, module in trees().items()
        for name, line in identifiers(module)
        if name in BANNED or name in VAGUE
    ]


def test_no_identifier_is_a_banned_word() -> None:
    entries = [f"{path}:{line}: {name}" for path, name, line in watched() if name in BANNED]
    assert entries == []


def test_no_identifier_is_vague() -> None:
    entries = [
        f"{path}:{line}: {name}"
        for path, name, line in watched()
        if name in VAGUE and not (path in VAGUE_MODULES and name in VAGUE_FIELDS)
    ]
    assert not entries, "\n".join(entries)


def test_public_classes_have_different_names() -> None:
    count = collections.Counter(
        node.name
        for tree in trees().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, number in count.items() if number > 1} <= SHARED_CLASS_NAMES


def test_a_folder_has_at_most_twelve_modules() -> None:
    folders = {path.parent for path in trees()}
    counts = {
        str(folder): sum(path.parent == folder and path.stem != "__init__" for path in trees())
        for folder in folders
    }
    large = {name for name, count in counts.items() if count > MAX_MODULES}
    assert large <= LARGE_FOLDERS, large


def test_a_package_states_its_purpose_in_one_sentence() -> None:
    wrong = []
    for path, tree in trees().items():
        text = ast.get_docstring(tree) or ""
        is_package = (
            path.name == "__init__.py" and path.parts[0] == "simenv" and len(path.parts) > 2
        )
        is_covered = is_package and path.parts[1] in ONE_SENTENCE
        if is_covered and (not text.endswith(".") or "\n\n" in text):
            wrong.append(str(path))
    assert wrong == []


def has_sql(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "sqlite3" for alias in node.names):
            return True
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text.lower().lstrip().startswith(_STATEMENTS):
            return True
    return False


def test_sql_is_in_the_journal_package_alone() -> None:
    names = {
        str(path)
        for path, tree in trees().items()
        if not path.is_relative_to("simenv/service/journal") and has_sql(tree)
    }
    assert names == SQL_OUTSIDE, "take a module off the list when its SQL has moved; add none"


@pytest.mark.parametrize("package", [*PACKAGES, "noise_models", "bench"])
def test_docstrings_begin_with_an_imperative_or_a_noun(package: str) -> None:
    begins = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        and (text := ast.get_docstring(node))
        and text.split()[0].rstrip(",.:;") in PRONOUNS
    ]
    assert begins == []
