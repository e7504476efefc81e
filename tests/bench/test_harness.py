"""Peers, shares, probes, homes and replays of benchmarks."""

import os

import numpy as np
import pytest
from qiskit import QuantumCircuit

from bench.circuits import built, device_pairs, engine_circuit, measured, wide_circuit
from bench.harness import Report, probed
from bench.harness.environments import home
from bench.peers.base import matrix
from bench.peers.libraries import NAMES
from bench.peers.process import Peers, Variant, assert_same_circuit
from bench.service.programs import replayed
from noise_models import library


def test_variants_that_do_not_start_are_missing_alone(capsys: pytest.CaptureFixture[str]) -> None:
    variants = [Variant("int one", int), Variant("broken one", int, ("x", 2))]
    with Peers(variants, 6) as peers:
        assert [(peer.name, peer.call("bit_length")) for peer in peers] == [("int one", 3)]
        assert peers.missing == ["broken"]
        (peer,) = peers
        assert peer.call("no_such_method") is None
        assert list(peers) == []
    output = capsys.readouterr().out
    assert "left out from here: broken one: TypeError" in output
    assert "left out from here: int one: AttributeError" in output


def test_variants_get_no_circuits_wider_than_they_take() -> None:
    with Peers([Variant("narrow", int, widest=13), Variant("any", int)], 1) as peers:
        for width, names in ((13, ["narrow", "any"]), (14, ["any"])):
            assert [peer.name for peer in peers.prepared(width, [])] == names


def test_share_is_relative_to_the_fastest_peer_and_not_measured_without_one() -> None:
    report = Report("observables", "shares")
    report.share("strings_of_best", 3.0, [6.0, 4.0], "two peers")
    report.share("strings_of_best", 3.0, [], "none")
    assert [figure.value for figure in report.figures] == [0.75, None]


def test_two_figures_of_one_goal_have_two_labels() -> None:
    report = Report("hostile_client", "attacks")
    report.at_most("revoke_s", 2.0, "one attack")
    report.at_most("revoke_s", 0.1, "another")
    with pytest.raises(ValueError, match="two figures 'revoke_s' of 'one attack'"):
        report.at_most("revoke_s", 0.1, "one attack")  # would hide that the goal was missed


def test_peers_that_ran_another_circuit_are_named() -> None:
    assert_same_circuit({})
    assert_same_circuit({"a": [0.0, 1.0], "b": [0.1, 0.9]})
    with pytest.raises(AssertionError, match="b ran another circuit"):
        assert_same_circuit({"a": [0.0, 1.0], "b": [0.0, 0.0]})


def test_times_are_medians_in_the_unit_of_their_key(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("usage_sums")
    report.seconds("difference_us", 2e-6)
    report.seconds("year_mb", [3.0, 1.0, 2.0], "a case")
    assert [figure.value for figure in report.figures] == [2.0, 2.0]
    output = capsys.readouterr().out
    assert "MISSED Largest difference between a sum of usage" in output
    assert " (a case), MB: 2 (goal <= 100)" in output


def test_goals_without_a_figure_are_not_measured_and_stated_ones_stay() -> None:
    report = Report("qpm_overhead")
    report.at_most("share1_p50_ms", 1.0)
    report.none_measured("no host")
    found = [(figure.key, figure.value, figure.reason) for figure in report.figures]
    assert found == [("share1_p50_ms", 1.0, ""), ("share2_p50_ms", None, "no host")]
    assert not report.close()


def test_probed_calls_end_with_the_block_and_errors_named_are_answers() -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    with probed({"failing": fail}, 0.001, (ValueError,)) as seconds:
        while calls < 3:
            pass
    assert len(seconds["failing"]) == calls


def test_home_is_new_and_the_environment_is_restored() -> None:
    before = dict(os.environ)
    with home() as folder:
        assert os.environ["SIMENV_HOME"] == str(folder)
        assert list(folder.iterdir()) == []
    assert dict(os.environ) == before


def test_engine_circuit_has_the_gates_in_their_order() -> None:
    gates = wide_circuit("tfim", 4, 1)
    circuit = engine_circuit(built(4, gates))
    names = [circuit.table.names[op] for op in circuit.ops]
    assert names == [name for name, _, _ in gates]
    assert engine_circuit(measured(4, gates)).ops.size == len(gates) + 4


def test_working_pairs_are_those_of_gates_without_an_error_of_1() -> None:
    gates = [each for each in library.load("fez").gates if each.name == "cz"]
    works = {tuple(sorted(each.qubits)) for each in gates if (each.error or 0.0) < 1.0}
    assert set(device_pairs("fez", working=True)) == works
    assert set(device_pairs("fez")) > works


@pytest.mark.parametrize("name", [*NAMES, "u", "r", "ecr"])
def test_matrices_are_those_of_qiskit(name: str) -> None:
    angles = {"u": (0.1, 0.2, 0.3), "r": (0.1, 0.2)}.get(name, (0.4,) * name.startswith("r"))
    size = 2 if name in ("cx", "cz", "swap", "ecr") else 1
    circuit = QuantumCircuit(size)
    getattr(circuit, name)(*angles, *range(size))
    assert np.array_equal(matrix(name, tuple(angles)), circuit.data[0].operation.to_matrix())


def test_replay_shares_cores_among_the_processes_that_have_work() -> None:
    # Seconds of the stages pack, service, workers, read; 1 % is one task's part.
    assert replayed(0, 0, 10, 0, cores=2, workers=2) == pytest.approx(5)
    assert replayed(0, 0, 10, 0, cores=1, workers=2) == pytest.approx(10)
    assert replayed(3, 0, 0, 7, cores=9, workers=2) == pytest.approx(10)  # one client
    busy = replayed(0.5, 0.5, 8, 1, cores=2, workers=2)
    assert 5.0 <= busy <= 5.2  # all that is to do, on two cores
    assert 4.0 <= replayed(0.5, 0.5, 8, 1, cores=4, workers=2) <= 4.3  # what each worker does
