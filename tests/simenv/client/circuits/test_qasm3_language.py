"""One program for each construct of OpenQASM 3: it runs as its first line says, or is refused by
name, with line and column."""

from __future__ import annotations

import json
import re
from pathlib import Path

import engine_judge
import pytest
from failing import fails

from simenv.client.circuits import load, to_qiskit
from simenv.errors import ProgramError
from simulators.engine import Request, RunControl, RunOptions
from simulators.errors import TooManySteps
from simulators.statevector.engine import StatevectorEngine

pytest.importorskip("qiskit_qasm3_import")

PROGRAMS = {path.stem: path for path in sorted((Path(__file__).parent / "qasm3").iterdir())}


def promise(name: str, kind: str) -> str | None:
    """What the first line says after this word; None if it says something else."""
    first = PROGRAMS[name].read_text().split("\n", 1)[0]
    result = re.fullmatch(rf"// {kind}(?: at|:)? ?(.*)", first)
    return result.group(1) if result else None


def named(kind: str) -> list[str]:
    return [name for name in PROGRAMS if promise(name, kind) is not None]


def key(text: str) -> int:
    return int(text.replace(" ", ""), 2)


@pytest.mark.parametrize("name", named("runs"))
def test_construct_has_its_documented_outcomes(name: str) -> None:
    document = json.loads(promise(name, "runs") or "")
    expected = {key(text): pytest.approx(value) for text, value in document.items()}
    assert engine_judge.exact(PROGRAMS[name]) == expected
    assert engine_judge.exact(to_qiskit(load(PROGRAMS[name]).program)) == expected


@pytest.mark.parametrize("name", named("refused"))
def test_unsupported_construct_is_refused_by_name_with_line_and_column(name: str) -> None:
    line, column, value = (promise(name, "refused") or "").split(":", 2)
    refused = fails(ProgramError, "", load, PROGRAMS[name])
    assert value.strip() in refused.message
    assert (refused.line, refused.column) == (int(line), int(column))


@pytest.mark.parametrize("name", named("free"))
def test_input_is_a_parameter(name: str) -> None:
    assert load(PROGRAMS[name]).parameters == (promise(name, "free"),)


@pytest.mark.parametrize("name", named("endless"))
def test_endless_loop_ends_at_step_limit(name: str) -> None:
    circuit = engine_judge.received(load(PROGRAMS[name]).program)
    engine, options = StatevectorEngine(), RunOptions(max_steps=100_000)
    with pytest.raises(TooManySteps):
        engine.run(
            engine.plan(circuit, None, options), circuit, Request(9, 1), options, RunControl()
        )


def test_every_program_documents_its_outcome() -> None:
    kinds = ("runs", "refused", "free", "endless")
    assert sorted(name for kind in kinds for name in named(kind)) == sorted(PROGRAMS)
