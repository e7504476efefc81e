"""The runner of the kit, and its long circuit."""

import io
import json
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector, entropy, partial_trace

from simenv.qpm.contract import InProgressError
from simenv.qpm_check import runner
from simenv.qpm_check.check import Check, CheckNotApplicable, TargetProperty, VerdictState, row
from simenv.qpm_check.checks import crowds, rows
from simenv.qpm_check.circuits import ENOUGH, WANTED_S, LongCircuit, layered, one_qubit_gates
from simenv.qpm_check.runner import CheckReport, Options, check
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import (
    CheckFailed,
    CheckSkipped,
    NothingToCheckError,
    Objects,
    impurities,
    named,
)


def test_long_circuit_entangles_its_halves() -> None:
    circuit = QuantumCircuit.from_qasm_str(layered(6, 20)).remove_final_measurements(inplace=False)
    assert one_qubit_gates(6, 20) == sum(len(each.qubits) == 1 for each in circuit.data)
    # A product state costs an engine nothing, however many gates there are.
    assert entropy(partial_trace(Statevector(circuit), range(3)), base=2) > 1.0


class Nothing:
    """A QPM without methods."""


class Opener:
    """Counts what it opens; `broken`: it opens nothing."""

    def __init__(self, *, broken: bool = False) -> None:
        self.opened, self.closed, self.broken = 0, 0, broken

    @contextmanager
    def __call__(self, revision: int) -> Iterator[Any]:
        if self.broken:
            raise ConnectionError("nobody is there")
        self.opened += 1
        yield Nothing
        self.closed += 1


def raising(error: Exception | None, **options: Any) -> Check:
    @row("a.row", "a title", **options)
    def made(bench: CheckSession) -> None:
        if error is not None:
            raise error

    return made


def verdicts(*given: Check, opener: Opener | None = None, **options: Any) -> CheckReport:
    return check(Objects("nothing", opener or Opener()), given, Options(revisions=(2,), **options))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, VerdictState.PASSED),
        (CheckFailed("so"), VerdictState.FAILED),
        (CheckSkipped("so"), VerdictState.SKIPPED),
        (CheckNotApplicable("so"), VerdictState.NOT_APPLICABLE),
        (KeyError("so"), VerdictState.FAILED),
        (AssertionError("so"), VerdictState.FAILED),
    ],
)
def test_exception_of_check_is_its_verdict(error: Exception | None, state: VerdictState) -> None:
    (verdict,) = verdicts(raising(error)).verdicts
    assert verdict.state is state
    assert ("so" in verdict.why) == (error is not None)


def test_hanging_check_fails_and_next_check_gets_new_qpm() -> None:
    never = threading.Event()

    @row("a.hanging", "it hangs")
    def hanging(bench: CheckSession) -> None:
        never.wait()

    opener = Opener()
    done = verdicts(hanging, raising(None), opener=opener, limit_s=3.0)
    never.set()
    assert [v.state for v in done.verdicts] == [VerdictState.FAILED, VerdictState.PASSED]
    assert "3 s" in done.verdicts[0].why
    assert opener.opened == 2  # the next one had another QPM


def test_unresponsive_qpm_fails_first_check_and_others_are_skipped() -> None:
    never = threading.Event()

    class Deaf(Nothing):
        def sync_run(self, *given: Any, **named_ones: Any) -> None:
            never.wait()

    target = Objects("deaf", lambda revision: nullcontext(Deaf))
    options = Options(revisions=(1,), probe_s=0.2)
    done = check(target, [raising(None, revisions=(1,)) for _ in range(3)], options)
    never.set()
    assert [v.state for v in done.verdicts] == [
        VerdictState.FAILED, VerdictState.SKIPPED, VerdictState.SKIPPED,
    ]  # fmt: skip
    assert "not answered within 0.2 s" in done.verdicts[0].why
    assert not done.ok


def test_check_marked_alone_gets_its_own_qpm() -> None:
    opener = Opener()
    verdicts(raising(None), raising(None), raising(None, alone=True), raising(None), opener=opener)
    assert (opener.opened, opener.closed) == (3, 3)


def test_qpm_is_reopened_after_failed_check_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "has_transport", True)
    needs = (TargetProperty.TRANSPORT,)
    opener = Opener()
    verdicts(raising(None, needs=needs), raising(None, needs=needs), opener=opener)
    assert opener.opened == 1
    opener = Opener()
    verdicts(raising(CheckFailed("so"), needs=needs), raising(None, needs=needs), opener=opener)
    assert opener.opened == 2


def test_plugins_that_fail_to_open_are_tried_once() -> None:
    done = verdicts(raising(None), raising(None), opener=Opener(broken=True))
    assert [v.state for v in done.verdicts] == [VerdictState.FAILED, VerdictState.SKIPPED]
    assert "nobody is there" in done.verdicts[0].why
    assert not done.ok
    (verdict,) = verdicts(raising(None, needs=(TargetProperty.PACKAGE,))).verdicts
    assert verdict.state is VerdictState.NOT_APPLICABLE


def test_report_of_skipped_checks_and_pattern_without_check_fail() -> None:
    assert not verdicts(raising(CheckSkipped("so"))).ok
    with pytest.raises(NothingToCheckError, match="no row"):
        check(Objects("nothing", Opener()), rows(), Options(only=("no.such",)))


def test_checks_have_unique_ids_and_errors_their_names() -> None:
    every = rows()
    assert len({each.id for each in every}) == len(every) >= 150
    for each in every:
        assert each.title
        assert each.revisions in ((1,), (2,), (1, 2))
    assert named(InProgressError("not yet")) == "DEFwInProgress"
    assert named(KeyError("x")) == "KeyError"


def test_subclasses_and_tuples_are_not_plain_data() -> None:
    class Text(str):
        __slots__ = ()

    assert impurities({"a": [Text("x")]}) == [
        "answer['a'][0] is of type "
        "test_runner.test_subclasses_and_tuples_are_not_plain_data.<locals>.Text".replace(
            "test_runner", Text.__module__
        )
    ]
    assert impurities({1: (1, 2)}) == ["answer[1] is of type tuple"]
    assert impurities({"a": [1, 2.5, None, True, {"b": "c"}]}) == []


def a_report() -> CheckReport:
    return verdicts(
        raising(None), raising(CheckFailed("why <&> \x07not")), raising(CheckSkipped("not here"))
    )


def test_reports_and_tables_show_each_verdict_plainly() -> None:
    suite = ET.fromstring(runner.junit(a_report()))[0]
    assert suite.attrib["tests"] == "3"
    assert (suite.attrib["failures"], suite.attrib["skipped"]) == ("1", "1")
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["skipped"]]
    assert "why <&>" in suite[1][0].attrib["message"]
    doc = json.loads(json.dumps(runner.plain(a_report())))
    assert (doc["ok"], doc["passed"], doc["failed"], doc["skipped"]) == (False, 1, 1, 1)
    assert [each["state"] for each in doc["rows"]] == ["passed", "failed", "skipped"]
    stream = io.StringIO()
    runner.table(a_report(), everything=False, stream=stream)
    text = stream.getvalue()
    assert "failed" in text
    assert "\x07" not in text
    assert "\x1b" not in text
    assert "1 passed, 1 failed, 1 skipped, 0 not applicable" in text


class Machine:
    """Takes the time of a statevector simulator, and refuses circuits that are too wide."""

    def __init__(self, widest: int, gate_s: float) -> None:
        self.widest, self.gate_s = widest, gate_s
        self.widths: list[int] = []
        self.took_s = 0.0

    def run(self, text: str, num_shots: int) -> dict[str, Any]:
        width = int(text.partition("qreg q[")[2].partition("]")[0])
        self.widths.append(width)
        if width > self.widest:
            raise ValueError(f"{width} qubits")
        self.took_s = 1e-3 + num_shots * text.count(";") * self.gate_s * 2**width
        return {"exec_time": 0.0, "completion_time": self.took_s}


def test_long_circuit_is_found_in_few_tries_on_a_fast_simulator() -> None:
    machine = Machine(22, 1e-10)
    LongCircuit().text(machine.run)
    assert machine.took_s >= ENOUGH * WANTED_S
    assert len(machine.widths) <= 14, "each width was tried, two qubits after the other"


@pytest.mark.parametrize("widest", [2, 4, 5, 6, 7])
def test_search_goes_back_to_the_widest_circuit_that_the_device_takes(widest: int) -> None:
    machine = Machine(widest, 1e-7)
    load = LongCircuit()
    load.text(machine.run)
    assert machine.took_s >= ENOUGH * WANTED_S
    assert machine.widths[-1] == widest - widest % 2
    assert load.max_qubits == machine.widths[-1] or load.shots == 1


def test_slow_target_runs_no_more_circuits_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[int] = []

    def submit(*_: object, **__: object) -> int:
        time.sleep(0.002)
        submitted.append(len(submitted))
        return submitted[-1]

    ended = SimpleNamespace(task_status=lambda *_, **__: {"lifecycle_state": "completed"})
    slow = SimpleNamespace(q=ended, reserve=lambda: 1, submit=submit, until=lambda ask, *_: ask())
    monkeypatch.setattr(crowds, "COMES_S", 0.1)
    with pytest.raises(CheckSkipped, match="1,024 circuits take"):
        crowds.count.check(slow)  # type: ignore[arg-type]
    assert len(submitted) < 100
