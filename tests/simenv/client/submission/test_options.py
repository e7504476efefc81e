"""Submission: options, blocks, noise, posting."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from client_peer import Peer, spec, terms
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

import simenv
from simenv.client.circuits import load
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.client.connection.session import ServiceSession
from simenv.client.submission.arguments import checked_key
from simenv.client.submission.options import (
    CheckedOptions,
    checked_options,
    checked_seed,
    item_seeds,
    sweep_seeds,
)
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import InflightWindow, PostedTask, post, send
from simenv.client.submission.sweep_size import RESULT_BYTES, bindings_per_task
from simenv.errors import (
    BatchRefusedError,
    InfeasibleError,
    OptionError,
    ServiceLostError,
    TimedOutError,
)
from simenv.model import MAX_BINDINGS, Program, TaskOptions, TaskSpec
from simenv.wire.messages import client as m


def chosen(**changes: Any) -> CheckedOptions:
    return checked_options(changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("shots", -1), ("shots", float("nan")), ("shots", 2**31), ("shots", 1.5), ("shots", True),
        ("shots", "10"), ("outputs", ("count",)), ("outputs", ()), ("engine", "../x"),
        ("engine", ""), ("precision", "half"), ("pool", "Main;rm"), ("pool", "a" * 65),
        ("priority", 0.5), ("priority", 10**7), ("queue_timeout_s", 0),
        ("queue_timeout_s", -1.0), ("run_timeout_s", float("inf")), ("run_timeout_s", float("nan")),
        ("run_timeout_s", "1"), ("name", "two\nlines"), ("name", "\x1b[31m"),
        ("prefer", "Hardware"), ("prefer", ["a b"]), ("prefer", ["q"] * 17),
        ("outputs", 5), ("prefer", 5), ("qubit_mapping", 5), ("qubit_mapping", {0: 1}),
        ("qubit_mapping", "01"), ("qubit_mapping", [0.0]), ("options", 5), ("options", ["bond"]),
        ("ranks", 0), ("ranks", 3), ("ranks", 8192), ("ranks", 2.0), ("ranks", True),
    ],
)  # fmt: skip
def test_invalid_option_values_are_refused(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=option.removesuffix("s")):
        chosen(**{option: value})


def test_ranks_are_part_of_task_options() -> None:
    terms = chosen(ranks=np.int64(4)).task_options(measures=True, observables=None)
    assert terms.ranks == 4
    assert chosen(ranks=None).task_options(measures=True, observables=None).ranks == 0


def test_numpy_integers_are_accepted() -> None:
    assert chosen(shots=np.int64(7)).shots == 7
    assert checked_seed(np.uint64(2**64 - 1), None) == 2**64 - 1


def test_outputs_may_be_single_text_and_are_unique() -> None:
    assert chosen(outputs="probabilities").task.outputs == ("probabilities",)
    assert chosen(outputs=["counts", "counts"]).task.outputs == ("counts",)


@pytest.mark.parametrize(
    ("changes", "measures", "observed", "outputs"),
    [
        ({}, True, False, ("counts",)),
        ({}, True, True, ("counts", "expectation")),
        ({}, False, True, ("expectation",)),
        ({"shots": None}, True, True, ("expectation",)),
        ({"outputs": ("expectation",)}, True, True, ("expectation",)),
        ({"shots": None, "outputs": ("probabilities",)}, True, False, ("probabilities",)),
    ],
)
def test_default_outputs_follow_from_measurements_shots_and_observables(
    changes: dict[str, Any], measures: bool, observed: bool, outputs: tuple[str, ...]
) -> None:
    assert chosen(**changes).outputs(measures, observed) == outputs


def test_counts_of_exact_run_are_refused() -> None:
    with pytest.raises(OptionError, match="probabilities"):
        chosen(shots=None).outputs(measures=True, observed=False)


def test_expectation_without_observables_is_refused() -> None:
    with pytest.raises(OptionError, match="observables"):
        chosen(outputs=("expectation",)).outputs(measures=True, observed=False)


def test_unhashable_option_value_is_refused() -> None:
    with pytest.raises(OptionError, match="engine"):
        chosen(engine=["auto"])


def test_shots_true_is_refused_even_after_shots_1() -> None:
    assert chosen(shots=1).shots == 1
    with pytest.raises(OptionError, match="shots=True"):
        chosen(shots=True)


@pytest.mark.parametrize("shots", [0, 0.0, None, np.int64(0)])
def test_shots_zero_and_none_are_exact(shots: object) -> None:
    assert chosen(shots=shots, outputs=("probabilities",)).shots == 0


@pytest.mark.parametrize("shots", [1e6, np.float64(1e6), np.int32(10**6)])
def test_shots_may_be_float_with_integer_value(shots: object) -> None:
    assert chosen(shots=shots).shots == 1_000_000


@pytest.mark.parametrize("key", ["", "~mine", "x" * 257, 7, None])
def test_invalid_keys_are_refused(key: object) -> None:
    with pytest.raises(OptionError):
        checked_key(key)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "7"])
def test_invalid_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(OptionError, match="seed"):
        checked_seed(seed, None)


def test_drawn_seeds_differ_and_fit_a_double() -> None:
    drawn = {checked_seed(None, None) for _ in range(100)}
    assert len(drawn) == 100
    assert max(drawn) < 2**53


def test_seed_drawn_for_key_is_reproducible() -> None:
    assert checked_seed(None, "sweep-17") == checked_seed(None, "sweep-17")
    assert item_seeds(None, 3, "sweep-17") == item_seeds(None, 3, "sweep-17")
    assert checked_seed(None, "sweep-17") != checked_seed(None, "sweep-18")


def test_item_seeds_of_neighbouring_base_seeds_are_distinct() -> None:
    seeds = [seed for base in range(50) for seed in item_seeds(base, 50, None)]
    assert len(set(seeds)) == 2_500


def test_derived_seeds_have_fixed_values() -> None:
    assert item_seeds(7, 2, None) == [6_560_375_150_073_525, 7_235_829_850_334_302]


def test_item_seeds_of_longer_list_begin_with_those_of_shorter_list() -> None:
    assert item_seeds(7, 5, None)[:3] == item_seeds(7, 3, None)


def test_bindings_of_a_sweep_share_the_seed() -> None:
    assert sweep_seeds(7, 3, None) == [7, 7, 7]


def test_explicit_seeds_are_used_one_per_item() -> None:
    assert item_seeds([3, 1, 2], 3, None) == [3, 1, 2]
    assert sweep_seeds(np.array([3, 1]), 2, None) == [3, 1]
    with pytest.raises(OptionError, match="2 seeds for 3 tasks"):
        item_seeds([1, 2], 3, None)
    with pytest.raises(OptionError, match=r"seed\[1\]=-1"):
        item_seeds([1, -1], 2, None)


def test_prefer_keeps_order_without_repeats_and_excludes_pool() -> None:
    assert chosen().task.prefer == ()
    assert chosen(prefer="hardware").task_options(True, None).prefer == ("hardware",)
    assert chosen(prefer=["qpu", "emulator", "qpu"]).task.prefer == ("qpu", "emulator")
    with pytest.raises(OptionError, match="prefer cannot be combined with pool"):
        chosen(prefer="hardware", pool="qpu")


COUNTS = TaskOptions()


def layers(num_qubits: int, depth: int) -> Program:
    angles = iter(ParameterVector("a", num_qubits * depth))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(depth):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return load(circuit).program


SMALL = layers(4, 3)


def test_short_sweep_of_small_circuit_is_split_for_two_workers() -> None:
    assert bindings_per_task(SMALL, COUNTS, 1024, 128) == 64
    assert bindings_per_task(SMALL, COUNTS, 1024, 0) >= 1


@pytest.mark.parametrize("total", [100, 1_000, 10_000, 100_000])
def test_bindings_of_small_circuit_are_grouped_into_few_tasks(total: int) -> None:
    rows = bindings_per_task(SMALL, COUNTS, 1024, total)
    assert 64 <= rows <= MAX_BINDINGS
    assert rows == max(64, total // 16) or rows == MAX_BINDINGS or rows * 16 >= total


def test_bindings_of_slow_circuit_are_separate_tasks() -> None:
    assert bindings_per_task(layers(18, 20), COUNTS, 1024, 500) == 1


@given(st.integers(1, 14), st.integers(1, 2**20), st.integers(1, 10**5))
def test_result_size_of_task_is_bounded(num_qubits: int, shots: int, total: int) -> None:
    program = layers(num_qubits, 1)
    rows = bindings_per_task(program, COUNTS, shots, total)
    assert 1 <= rows <= MAX_BINDINGS
    assert rows == 1 or rows * min(shots, 2**num_qubits) * 12 <= RESULT_BYTES
    states = bindings_per_task(program, TaskOptions(("statevector",)), 0, total)
    assert states == 1 or states * 16 * 2**num_qubits <= RESULT_BYTES


def test_qubits_of_a_device_that_a_circuit_leaves_alone_cost_nothing() -> None:
    placed = QuantumCircuit(127, 4)
    placed.compose(to_qiskit(SMALL), range(100, 104), range(4), inplace=True)
    alone = bindings_per_task(SMALL, COUNTS, 1024, 1000)
    assert bindings_per_task(load(placed).program, COUNTS, 1024, 1000) == alone > 1


BAD = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=0)


def posted(link: ServiceSession, seed: int = 0, key: str | None = None) -> PostedTask:
    return post(link, PreparedSubmit(terms(), [spec(seed)], single=True), key, InflightWindow())


def refusing(peer: Peer, *seeds: int) -> None:
    def picky(message: m.Submit) -> list[m.ToClient]:
        if message.tasks[0].seed in seeds:
            return [m.Refused(message.request, [BAD])]
        return peer.submitted(message)

    peer.on(m.Submit, picky)


def test_refused_posted_task_does_not_affect_others(link: ServiceSession, peer: Peer) -> None:
    refusing(peer, 1)
    tasks = [posted(link, seed) for seed in range(3)]
    ended = list(simenv.as_completed(tasks, timeout_s=60))
    assert ended[0] is tasks[1]
    assert {task.result().seed for task in ended[1:]} == {0, 2}
    assert isinstance(tasks[1].exception(), InfeasibleError)
    assert list(simenv.as_completed([tasks[1]])) == [tasks[1]]
    assert len({*tasks, tasks[1]}) == 3
    assert tasks[1] != tasks[0]


def test_posted_task_is_submitted_again_after_silence_of_service(
    link: ServiceSession, peer: Peer, impatient: None
) -> None:
    peer.silent = True
    task = posted(link, 7)
    with pytest.raises(ServiceLostError):
        task.result()
    peer.silent = False
    assert task.result(5).seed == 7
    first, *others = peer.of(m.Submit)
    assert {(again.key, again.offset) for again in others} == {(first.key, first.offset)}
    assert not link._requests
    assert link._pending.unanswered == 0


def test_late_acceptance_of_posted_task_is_received(link: ServiceSession, peer: Peer) -> None:
    go = threading.Event()
    peer.on(m.Submit, lambda message: peer.submitted(message) if go.wait(30) else [])
    task = posted(link, 7)
    for each in (task.result, task.exception):
        with pytest.raises(TimedOutError):
            each(0.01)
    assert repr(task) == "<Task not accepted yet>"
    assert not task.done()
    go.set()
    assert task.result(5).seed == 7
    assert repr(task) == f"<Task {task.id} DONE>"


def test_repr_of_refused_posted_task_does_not_raise(link: ServiceSession, peer: Peer) -> None:
    refusing(peer, 1)
    task = posted(link, 1)
    assert isinstance(task.exception(5), InfeasibleError)
    assert repr(task) == "<Task refused>"


def test_refused_binding_is_named_by_its_index_in_sweep(link: ServiceSession, peer: Peer) -> None:
    bad = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=2)
    peer.on(m.Submit, lambda message: [m.Refused(message.request, [bad])])
    rows = TaskSpec(spec().program, 10, 1, bytes(800), count=100)
    with pytest.raises(
        BatchRefusedError, match=r"100 of 300 items.* item 200: 33 qubits"
    ) as caught:
        send(link, PreparedSubmit(terms(), [rows, rows, rows]), None)
    assert [error.index for error in caught.value.errors] == [200]


def test_posted_submit_says_that_its_result_is_awaited(link: ServiceSession, peer: Peer) -> None:
    posted(link, 1).result(5)
    send(link, PreparedSubmit(terms(), [spec(2)], single=True), None)
    assert [message.awaits_result for message in peer.of(m.Submit)] == [True, False]


def test_window_keeps_no_answered_task_but_the_last(link: ServiceSession, peer: Peer) -> None:
    window = InflightWindow()
    for seed in range(5):
        order = PreparedSubmit(terms(), [spec(seed)], single=True)
        assert post(link, order, None, window).result(5).seed == seed
    assert len(window._open) == 1
