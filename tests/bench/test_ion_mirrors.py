"""Mirror circuits of trapped ions: the published form of their outcomes, and the comparison."""

import json
from pathlib import Path

import pytest

from bench.engine.measured import Survival, differences, grouped, survivals

LAYER = "ZZ q[0],q[2];\nry(0.5*pi) q[1];\n"
BACK = "ry(3.5*pi) q[1];\nrz(1.0*pi) q[0];\nrz(1.0*pi) q[2];\nZZ q[0],q[2];\n"
CIRCUIT = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[4];\ncreg c[4];\nx q[0];\nh q[2];\n'
    f"{LAYER * 20}barrier q;\n{BACK * 20}h q[2];\n"
    + "".join(f"measure q[{k}] -> c[{k}];\n" for k in range(4))
)


def test_survival_is_the_share_of_the_outcome_without_noise(tmp_path: Path) -> None:
    """Bit 0 of an outcome is its last character; 20 layers and back take 2 % of each by their
    gates, and the memory error more."""
    outcomes = ["0001"] * 90 + ["1000"] * 10
    path = tmp_path / "MB_N4.json"
    path.write_text(
        json.dumps({"qasm": {"(40, 3)": CIRCUIT}, "results": {"(40, 3)": {"c": outcomes}}})
    )
    (found,) = survivals(path, 20_000, 1)
    assert (found.qubits, found.layers, found.measured) == (4, 40, 0.9)
    assert 0.85 < found.emulated < found.without_memory - 0.01 < 0.95


def test_differences_are_those_of_the_circuits_of_a_width_and_length() -> None:
    rows = [Survival(20, 2, 0.8, 0.9, 1.0), Survival(20, 2, 0.6, 0.8, 1.0)]
    groups = grouped([Survival(26, 2, 0.5, 0.4, 0.4), *rows], "qubits", "layers")
    assert groups[0] == rows
    mean, half = differences(rows)
    assert mean == pytest.approx(0.15)
    assert half == pytest.approx(2.576 * 0.05)
