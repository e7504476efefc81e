"""`simenv explain --ledger`: tables, JSON, picture, refusals."""

from pathlib import Path

import pytest
from shell import Shell

from simenv import config
from simulators.compiler import kernel

BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")
ON = ("--device", "superconducting-lattice")


def test_ledger_names_components_gates_and_qubits_unless_off(shell: Shell) -> None:
    output = shell("explain", BELL, *ON, "--ledger").out
    assert "fidelity about 0.9" in output
    for word in ("gate.depolarizing", "qubit.readout", "cz    0-1", "no pair of qubits stands out"):
        assert word in output
    factors = ("--noise", "qubit=0,gate.crosstalk=0")
    outcome = shell("explain", BELL, *ON, "--ledger", *factors, "--json").object
    assert set(outcome["components"]) == {"gate.depolarizing", "gate.coherent"}


def test_noise_with_a_file_in_place_of_the_circuit_is_the_ledger(shell: Shell) -> None:
    outcome = shell("explain", "--noise", BELL, *ON, "--json").object
    assert outcome == shell("explain", BELL, *ON, "--ledger", "--json").object
    assert outcome["loss"] == pytest.approx(sum(outcome["components"].values()))
    assert outcome["edges"][0]["qubits"] == [0, 1]


def test_plot_is_a_png(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "ledger.png"
    shell("explain", BELL, *ON, "--ledger", "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_kernels_are_kept_in_their_folder(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_chosen", [])
    assert shell("explain", BELL, *ON, "--ledger").code == 0
    assert kernel._chosen == [kernel.version(config.kernel_folder())]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((BELL, "--ledger"), "--ledger without --device"),
        ((), "no circuit"),
        ((BELL, *ON, "--ledger", "--shots", "5"), "--ledger and --shots"),
        ((BELL, *ON, "--plot", "a.png"), "--plot without --ledger"),
        ((BELL, *ON, "--ledger", "--plan"), "--plan and --ledger"),
        (("--noise", BELL, *ON, "--plan"), "--plan and --noise FILE"),
        ((BELL, *ON, "--ledger", "--noise", "off"), "no noise acts"),
        ((BELL, *ON, "--ledger", "--plot", "a.nothing"), "--plot a.nothing"),
    ],
)
def test_refusals_name_the_option(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    result = shell("explain", *arguments)
    assert result.code != 0
    assert words in result.err
