"""Figures that `bench run qfw_host` derives from times and outputs inside the host."""

import pytest

from bench.harness.report import Report
from bench.service.qfw_host import EXAMPLES, example_state, print_overhead, report_examples


def test_share_is_that_of_neighbouring_blocks_where_the_host_drifts() -> None:
    # The host slows down between the third block of the one plugin and that of the other.
    blocks = {"own": [11.5, 11.5, 11.5, 21.5, 21.5], "null": [10.0, 10.0, 20.0, 20.0, 20.0]}
    times = {name: [ms / 1e3 for ms in each for _ in range(10)] for name, each in blocks.items()}
    report = Report("qfw_host", "")
    print_overhead(report, 1, times, 10)
    values = {figure.key: figure.value for figure in report.figures}
    assert values == {
        "share1_promised_ms": pytest.approx(1.5),
        "share1_p50_ms": pytest.approx(1.5),
    }


LACKS = "Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named '{}'"


def test_examples_whose_packages_are_missing_are_not_counted_as_run() -> None:
    outputs = [
        ("all good", 0),
        ("Traceback (most recent call last):\nValueError: 1", 0),
        ("no end", None),
        ("", 2),
        (LACKS.format("pennylane"), 1),
        (LACKS.format("simenv.frontends"), 1),
    ]
    states = [example_state(text, status) for text, status in outputs]
    assert states[4] == "ModuleNotFoundError: No module named 'pennylane'"
    report = Report("qfw_host", "")
    report_examples(report, states)
    assert {figure.key: figure.value for figure in report.figures} == {
        "examples_run": 5,
        "examples_failed": 4,
    }
    assert report.goal("examples_run") == len(EXAMPLES)
