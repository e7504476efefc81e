"""The share of a call that `bench run qfw_host --only overhead` reports."""

import pytest

from bench.harness.report import Report
from bench.service.qfw_host import print_overhead


def test_share_is_that_of_neighbouring_blocks_where_the_host_drifts() -> None:
    # The host slows down between the third block of the one plugin and that of the other.
    blocks = {"own": [11.5, 11.5, 11.5, 21.5, 21.5], "null": [10.0, 10.0, 20.0, 20.0, 20.0]}
    times = {name: [ms / 1e3 for ms in each for _ in range(10)] for name, each in blocks.items()}
    report = Report("qfw_host", "")
    print_overhead(report, 1, times, 10)
    assert [figure.value for figure in report.figures] == [pytest.approx(1.5)]
