"""The index of errors has each code that a user can meet, with its meaning and its cure."""

import ast
import re
from pathlib import Path

import pytest
import typer.main

from simenv.cli.app import application
from simenv.errors import SimenvError
from simenv.model import DEPENDENCY
from simenv.worker.runner import CODED_ERRORS, ENDED_EARLY, PREEMPTED

ROOT = Path(__file__).parents[2]
SHORTEST_CURE = 20  # characters


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/site"))
    import error_reference

    return error_reference


def classes_with_codes() -> dict[str, str]:
    """Codes by the names of all subclasses of SimenvError in the sources."""
    bases: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    for path in (ROOT / "simenv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            bases[node.name] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
                    codes[node.name] = ast.literal_eval(line.value)

    def derived(name: str) -> bool:
        return name == "SimenvError" or any(map(derived, bases.get(name, [])))

    return {name: code for name, code in codes.items() if derived(name)}


def test_each_class_with_a_code_is_in_the_index(reference) -> None:
    listed = {kind.__name__: kind.code for kind in reference.error_classes()}
    found = classes_with_codes()
    assert len(found) > 25
    assert listed == found | {"SimenvError": "error"}


def test_each_class_has_a_meaning_and_a_cure_of_its_own(reference) -> None:
    page = reference.error_page()
    for kind in reference.error_classes():
        assert reference.meaning(kind), kind
        assert len(vars(kind)["remedy"]) >= SHORTEST_CURE, kind
        assert f"| `{kind.__name__}` | `{kind.code}` |" in page


def test_index_has_each_reason_of_a_failed_task(reference) -> None:
    ends = {kind.code for kind in CODED_ERRORS} | {*ENDED_EARLY} - {PREEMPTED} | {DEPENDENCY}
    source = (ROOT / "simenv/wire/messages/client.py").read_text()
    comment = source.partition("class Failure(")[2].partition("    reason: str")[0]
    ends |= set(re.findall(r"[a-z_]+", "".join(re.findall(r"# (.*)", comment))))
    assert len(ends) > 15
    assert ends - set(reference.REASONS) == set()


def test_commands_of_the_index_exist(reference) -> None:
    named = set(re.findall(r"`simenv ([a-z]+)", reference.error_page()))
    assert named <= set(typer.main.get_command(application()).commands)


def test_base_class_has_the_remedy_that_classes_without_one_show() -> None:
    assert SimenvError.remedy
