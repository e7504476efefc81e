"""Drawings, results and pools of devices."""

import time
from pathlib import Path

import live
import msgspec
import numpy as np
import pytest
from shell import Shell

from noise_models import library
from noise_models.calibration import CalibrationSnapshot, GateCalibration, NativeGate
from simenv.cli import terminal
from simenv.cli.app import run
from simenv.cli.devices import details, drawing, overview
from simenv.service.devices.registry import device_info


def device(edges: list[tuple[int, int]], **changes: object) -> CalibrationSnapshot:
    count = max(max(edge) for edge in edges) + 1
    snapshot = CalibrationSnapshot(
        name="x", num_qubits=count, native_gates=(NativeGate("cz", 2),), coupling=tuple(edges)
    )
    return msgspec.structs.replace(snapshot, **changes)


def text(snapshot: CalibrationSnapshot) -> list[str]:
    result = drawing.draw(snapshot)
    return ["".join(piece for piece, _ in line) for line in result.lines]


@pytest.mark.parametrize(
    "edges",
    [
        [(k, k + 1) for k in range(20)],
        [(0, 1), (1, 2), (1, 3), (3, 4)],
        [(r * 5 + c, r * 5 + c + 1) for r in range(4) for c in range(4)]
        + [(r * 5 + c, r * 5 + c + 5) for r in range(3) for c in range(5)],
        list(library.load("superconducting-lattice").coupling),
    ],
)
def test_lattices_have_coupled_qubits_one_step_apart(edges: list[tuple[int, int]]) -> None:
    result = drawing.lattice(device(edges)).positions
    steps = np.array([np.abs(result[a] - result[b]).sum() for a, b in edges])
    np.testing.assert_array_equal(steps, 1.0)
    assert len({tuple(place) for place in result.tolist()}) == len(result)


def test_graphs_are_laid_out_by_coordinates_stress_and_parts() -> None:
    edges = [(a, b) for a in range(5) for b in range(a)]  # of all pairs: no square grid has it
    result = drawing.lattice(device(edges)).positions
    steps = [np.linalg.norm(result[a] - result[b]) for a, b in edges]
    assert min(steps) > 0.3
    assert max(steps) < 2.0
    result = drawing.lattice(device([(0, 1), (2, 3)])).positions
    assert np.linalg.norm(result[:2].mean(0) - result[2:].mean(0)) > 1.0
    places = ((0.0, 0.0), (3.0, 0.0), (3.0, 2.0))
    result = drawing.lattice(device([(0, 1), (1, 2)], coordinates=places)).positions
    np.testing.assert_array_equal(result, places)


def test_drawing_shows_levels_of_error_on_the_grid() -> None:
    errors = {(0, 1): 0.01, (1, 2): 0.015, (2, 3): 0.03, (3, 4): 0.2, (4, 5): 1.0, (5, 6): 0.01}
    gates = tuple(GateCalibration("cz", pair, error) for pair, error in errors.items())
    places = tuple((float(k), 0.0) for k in range(7))
    [line] = text(device(list(errors), gates=gates, coordinates=places))
    assert line == "0--1--2==3##4xx5--6"  # the median is 0.0225
    assert drawing.levels({0: 1.0, 1: 0.1, 2: 0.1}) == {0: drawing.BROKEN, 1: 0, 2: 0}
    lines = text(library.load("superconducting-lattice"))
    assert len(lines) == 9
    parts = " ".join(lines).translate(str.maketrans("-=~#|:;", "       ")).split()
    assert sorted(map(int, parts)) == list(range(27))


def test_without_a_terminal_no_escape_code_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    drawing.show(library.load("superconducting-lattice"))
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "two-qubit error" in output


def test_has_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_coloured", lambda stream: True)
    drawing.show(library.load("superconducting-lattice"))
    output = capsys.readouterr().out
    assert {"\x1b[32m", "\x1b[36m", "\x1b[33m", "\x1b[31m"} <= {
        output[at : at + 5] for at in range(len(output)) if output[at] == "\x1b"
    }


def test_without_room(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "width", lambda: 20)
    drawing.show(library.load("superconducting-lattice"))
    output = capsys.readouterr()
    assert output.out == ""
    assert "--plot FILE.png" in output.err


def test_figures_are_medians_of_what_was_measured() -> None:
    document = library.load("superconducting-lattice")
    table = {each.figure: each for each in details.figures(document)}
    assert table["t1"].median == np.median([qubit.t1_us for qubit in document.qubits])
    assert (table["cz error"].count, table["rz duration"].max) == (56, 0.0)


def test_medians_and_levels_leave_out_gates_that_do_not_work() -> None:
    edges = [(k, k + 1) for k in range(4)]
    errors = [0.01, 0.03, 1.0, 1.0]
    snapshot = device(
        edges, gates=tuple(GateCalibration("cz", e, x) for e, x in zip(edges, errors, strict=True))
    )
    figure = next(each for each in details.figures(snapshot) if each.figure == "cz error")
    assert (figure.median, figure.min, figure.max, figure.count) == (0.02, 0.01, 0.03, 2)
    assert details.broken_summary(snapshot) == ["cz 2-3", "cz 3-4"]
    assert drawing.levels(dict(enumerate(errors))) == {
        0: 0,
        1: 1,
        2: drawing.BROKEN,
        3: drawing.BROKEN,
    }
    assert details.working([1.0, 1.0]) == [1.0, 1.0]
    assert overview.median_pair_error(device_info("x", snapshot, "digest")) == 0.02


def test_pool_of_an_unknown_device_is_named_in_status(capsys: pytest.CaptureFixture[str]) -> None:
    pools = [{"name": "lab", "device": "nowhere", "min": 0, "max": 1}, {"name": "main"}]
    text = "pool lab runs nothing: there is no device 'nowhere'"
    with live.environment(pools=pools) as up:
        deadline = time.monotonic() + live.PATIENCE_S
        shown = ""
        while text not in shown and time.monotonic() < deadline:
            assert run(["status", "--name", up.name]) == 0
            shown = " ".join(capsys.readouterr().out.split())
        assert text in shown
        assert "pool main" not in shown


BELL = """OPENQASM 2.0; include "qelib1.inc";
qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q -> c;
"""


@pytest.fixture
def bell(tmp_path: Path) -> str:
    file = tmp_path / "bell.qasm"
    file.write_text(BELL)
    return str(file)


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_observables_name_qubits(shell: Shell, bell: str, command: tuple[str, ...]) -> None:
    words = ["--device", "superconducting-lattice", "--shots", "0"]
    result = shell(*command, bell, *words, "--observable", "ZI:0.5,IZ", "--observable", "ZZ")
    assert result.code == 0, result.err
    assert [line.partition(" = ")[0] for line in result.out.splitlines()] == ["ZI:0.5,IZ", "ZZ"]


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_a_twirl_is_stated(shell: Shell, bell: str, command: tuple[str, ...]) -> None:
    words = ["--device", "superconducting-lattice", "--engine", "stabilizer"]
    result = shell(*command, bell, *words, "--engine-option", "twirl=1", "--shots", "100", code=0)
    assert "noise twirled to Paulis" in result.err


def test_simulate_gives_the_time_on_the_device_as_submit_does(shell: Shell, bell: str) -> None:
    words = [bell, "--device", "superconducting-lattice", "--shots", "100", "--json"]
    seconds = shell("simulate", *words).object["device_time_s"]
    assert seconds > 0.0
    assert seconds == shell("submit", *words, "--wait").object["device_time_s"]


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_too_many_shots_are_refused(shell: Shell, bell: str, command: tuple[str, ...]) -> None:
    result = shell(*command, bell, "--device", "neutral-atoms", "--shots", "10001", code=2)
    assert "10001 shots; device neutral-atoms takes 10000 of one circuit" in result.err
