"""`--amplitude` of `submit`, `simulate` and `explain`."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell

HEAD = 'OPENQASM 2.0; include "qelib1.inc";\n'
WIDTH = 60
STRINGS = ("0" * WIDTH, "01" * (WIDTH // 2))


@pytest.fixture
def bell(tmp_path: Path) -> str:
    file = tmp_path / "bell.qasm"
    file.write_text(f"{HEAD}qreg q[3]; h q[0]; cx q[0],q[2]; z q[2];\n")
    return str(file)


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """A graph state of a ladder."""
    pairs = [(k, k + 1) for k in range(WIDTH - 1)] + [(k, k + 9) for k in range(0, WIDTH - 9, 3)]
    gates = [f"h q[{k}];" for k in range(WIDTH)] + [f"cp(0.4) q[{a}],q[{b}];" for a, b in pairs]
    file = tmp_path / "wide.qasm"
    file.write_text(f"{HEAD}qreg q[{WIDTH}]; {' '.join(gates)}\n")
    return str(file)


@pytest.mark.parametrize("command", ["submit", "simulate"])
def test_amplitudes_are_printed_in_their_order(shell: Shell, bell: str, command: str) -> None:
    words = ["--amplitude", "101", "--amplitude", "000", "--amplitude", "111"]
    words += ["--wait"] if command == "submit" else []
    result = shell(command, bell, *words)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert [line.partition(" = ")[0] for line in lines] == ["101", "000", "111"]
    assert lines[0].startswith("101 = -0.707106781187 ")
    printed = shell(command, bell, *words, "--json").object
    assert list(printed["amplitudes"]) == ["101", "000", "111"]
    assert printed["amplitudes"]["101"] == pytest.approx([-(0.5**0.5), 0.0])
    assert printed["counts"] is None


def test_wide_circuit_has_amplitudes(shell: Shell, wide: str) -> None:
    pytest.importorskip("cotengra")
    words = [word for text in STRINGS for word in ("--amplitude", text)]
    printed = [
        shell("submit", wide, *words, "--engine", engine, "--wait", "--json").object["amplitudes"]
        for engine in ("contraction", "mps")
    ]
    scale = 2.0 ** (WIDTH / 2)
    for text in STRINGS:
        one, other = ([scale * part for part in each[text]] for each in printed)
        assert one == pytest.approx(other, abs=1e-10)
    assert printed[0][STRINGS[0]] == pytest.approx([1 / scale, 0.0])


def test_explain_considers_engines_with_amplitudes(shell: Shell, bell: str) -> None:
    rows = shell("explain", bell, "--amplitude", "101", "--json").object
    assert rows["engine"] == "statevector"
    others = {each["engine"]: each["why"] for each in rows["engines"]}
    assert "no output 'amplitudes'" in others["stabilizer"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--amplitude", "10"), "'10' has 2 bits, the circuit 3"),
        (("--amplitude", "1 0"), "'1 0' is not made of 0 and 1"),
        (("--amplitude", "101", "--amplitude", "101"), "'101' is there twice"),
        (("--output", "amplitudes"), "--output"),
    ],
)
def test_wrong_strings_are_refused(
    shell: Shell, bell: str, words: tuple[str, ...], text: str
) -> None:
    result = shell("submit", bell, *words)
    assert result.code == 2
    assert text in result.err


def test_plan_does_not_depend_on_amplitudes(shell: Shell, bell: str) -> None:
    result = shell("explain", bell, "--plan", "--amplitude", "101")
    assert result.code == 2
    assert "--plan and --amplitude" in result.err
