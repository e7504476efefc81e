"""The guide's table of metrics and of series says what the code serves and stores."""

import re
from pathlib import Path

from simenv.gateway.metrics.collector import METRICS, UP

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "monitoring.md").read_text()


def test_table_of_metrics_agrees_with_code() -> None:
    listed = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in GUIDE.splitlines()
        if line.startswith("| `simenv_")
    ]
    expected = [(f"`{UP[0]}`", "gauge", "", UP[1])]
    expected += [(f"`{m.name}`", m.kind, ", ".join(m.labels), m.text) for m in METRICS]
    assert listed == expected


def test_metric_names_follow_the_rules_of_prometheus() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"simenv_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not re.search(r"_(ms|us|ns|mb|gib|percent)(_|$)", metric.name), "base units"
        assert len(metric.labels) <= 2
