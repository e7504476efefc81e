"""Results in a notebook, and decoded ones."""

import re
import struct
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from test_result import PROVENANCE

import simenv
from simenv.client import result_display
from simenv.client.result import Result
from simenv.client.result_data import DecodedResult
from simenv.errors import OptionError, ProtocolError
from simenv.model import RESULT_FORMAT, ResultData

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '
BELL = HEAD + "qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;"
WIDE = HEAD + "qreg q[6]; creg c[6]; h q; measure q->c;"


class Text(HTMLParser):
    """The text of a page, and whether its tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_histogram_sums_up_rare_outcomes_of_its_result(env: simenv.Client) -> None:
    result = env.run(BELL, shots=1000, seed=5, name="bell")
    value = Text(result._repr_html_()).words
    assert {"00", "11", *map(str, result.counts.values())} <= set(value)
    assert any("bell" in word for word in value)
    assert any("seed: 5" in word for word in value)
    result = env.run(WIDE, shots=64_000, seed=5)
    value = Text(result._repr_html_()).words
    entries = [word for word in value if re.fullmatch("[01]{6}", word)]
    assert len(entries) == 16
    assert min(result.counts[key] for key in entries) >= sorted(result.counts.values())[-16]
    assert "48 more" in value


def test_expectation_values_are_a_table(env: simenv.Client) -> None:
    result = env.run(BELL.replace("measure q->c;", ""), shots=None, observables=["ZZ", "ZI"])
    assert Text(result._repr_html_()).words[-6:] == ["0", "1", "exact", "1", "0", "exact"]


def test_task_shows_its_state_and_then_its_result(env: simenv.Client) -> None:
    task = env.submit(BELL, shots=10, name="waits")
    page = task._repr_html_()
    assert "waits" in page
    assert f"Task {task.id}" in page or f"Result {task.id}" in page
    task.result(60)
    assert task._repr_html_().startswith(task.result()._repr_html_())


def test_names_are_text() -> None:
    page = result_display.task_html("t-1", "<script>", "FAILED", None)
    assert "<script>" not in page
    assert any("<script>" in word for word in Text(page).words)


def test_client_shows_its_pools(env: simenv.Client) -> None:
    value = Text(env._repr_html_()).words
    assert "main" in value
    assert "2 of 2" in value


def test_client_without_gateway_has_no_dashboard(env: simenv.Client) -> None:
    assert env.dashboard is None
    assert "href" not in env._repr_html_()


def test_small_circuit_of_a_task_is_drawn(env: simenv.Client) -> None:
    task = env.submit(BELL, shots=10)
    task.result(60)
    (drawing,) = [word for word in Text(task._repr_html_()).words if "\u2524 H \u251c" in word]
    assert len(drawing.splitlines()) > 5
    assert dict(task.circuit().count_ops()) == {"measure": 2, "h": 1, "cx": 1}
    wide = env.submit(HEAD + "qreg q[30]; creg c[30]; h q; measure q->c;", shots=10)
    wide.result(60)
    assert "circuit" not in wide._repr_html_()


def test_circuit_of_a_task_has_its_values(env: simenv.Client) -> None:
    x = ParameterVector("x", 12)
    circuit = QuantumCircuit(1)
    for parameter in x:
        circuit.rx(parameter, 0)
    circuit.measure_all()
    values = [0.1 * k for k in range(12)]
    result = env.submit(circuit, parameter_values=values, shots=10).circuit()
    assert [each.operation.params[0] for each in result.data[:12]] == pytest.approx(values)
    assert env.submit_many((circuit, [values, values]), shots=10)[1].circuit().num_parameters == 12


def test_plot_has_a_bar_for_each_likely_outcome(env: simenv.Client) -> None:
    pytest.importorskip("matplotlib").use("agg")
    result = env.run(BELL, shots=1000, seed=5)
    axes = result.plot()
    assert [bar.get_height() for bar in axes.patches] == [result.counts["00"], result.counts["11"]]
    assert axes.get_ylabel() == "counts"
    axes.figure.canvas.draw()
    labels = axes.get_tightbbox()  # all of it is in the picture that savefig writes
    assert 0 <= labels.x0 < labels.x1 <= axes.figure.bbox.x1
    assert 0 <= labels.y0 < labels.y1 <= axes.figure.bbox.y1
    outcome = env.run(HEAD + "qreg q[8]; creg c[8]; h q; measure q->c;", shots=None,
                   outputs="probabilities")  # fmt: skip
    axes.clear()
    assert outcome.plot(axes) is axes
    assert len(axes.patches) == 64
    assert "192 rarer outcomes left out" in axes.get_title()
    values = env.run(BELL.replace("measure q->c;", ""), shots=None, observables="ZZ")
    fails(OptionError, "probabilities", values.plot)


DATA = ResultData(
    RESULT_FORMAT,
    (("c", 2),),
    2,
    shots=8,
    seed=1,
    outcome_width=1,
    outcomes=b"\x00\x01\x02\x03\x02",
    counts=struct.pack("<5I", 8, 1, 3, 4, 8),
    probability_outcomes=b"\x00\x01\x02\x03",
    probability_width=1,
    probabilities=struct.pack("<4d", 1.0, 0.25, 0.75, 1.0),
    statevector=np.arange(12, dtype="<c16").tobytes(),
    expectations=struct.pack("<6d", 0.1, 0.01, 0.2, 0.02, 0.3, 0.03),
    gradients=struct.pack("<6d", 1, 2, 3, 4, 5, 6),
    binding=40,
    count=3,
    rows=struct.pack("<3I", 1, 3, 1),
    probability_rows=struct.pack("<3I", 1, 2, 1),
)


def sheet(**changes: object) -> DecodedResult:
    return DecodedResult.of(msgspec.structs.replace(DATA, **changes), "t-8k2f")


def test_each_row_of_result_has_its_own_values() -> None:
    result = sheet()
    rows = [Result(result, PROVENANCE, k) for k in range(3)]
    assert [row.counts for row in rows] == [{"00": 8}, {"01": 1, "10": 3, "11": 4}, {"10": 8}]
    assert (rows[1].outcomes.tolist(), rows[1].outcome_counts.tolist()) == ([1, 2, 3], [1, 3, 4])
    assert rows[1].probabilities == {"01": 0.25, "10": 0.75}
    assert rows[2].statevector.tolist() == [8, 9, 10, 11]
    assert ([row.expectation for row in rows], rows[2].std_errors) == ([0.1, 0.2, 0.3], (0.03,))
    assert [row.gradient.tolist() for row in rows] == [[1, 2], [3, 4], [5, 6]]
    assert (rows[1].gradients.shape, [row.binding_index for row in rows]) == ((1, 2), [40, 41, 42])


def test_expectations_of_sweep_are_one_array() -> None:
    table = sheet().expectations()
    assert (table.shape, table[:, 0, 0].tolist()) == ((3, 1, 2), [0.1, 0.2, 0.3])


def test_row_without_outcomes_has_empty_counts() -> None:
    assert Result(sheet(rows=struct.pack("<3I", 0, 5, 0)), PROVENANCE, 0).counts == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0}, {"count": 2}, {"rows": b""}, {"rows": struct.pack("<3I", 1, 3, 2)},
        {"rows": struct.pack("<2I", 1, 4)}, {"rows": b"\0" * 11},
        {"probability_rows": struct.pack("<3I", 1, 1, 1)}, {"expectations": b"\0" * 40},
        {"expectations": b""}, {"gradients": b"\0" * 40}, {"gradients": b"\0" * 8},
        {"statevector": b"\0" * 20}, {"outcomes": b"\0" * 4}, {"outcome_width": 2},
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_arrays_are_a_protocol_error(changes: dict[str, object]) -> None:
    fails(ProtocolError, "t-8k2f", sheet, **changes)
