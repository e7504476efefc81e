"""Report of the plugin's own share of a call; `bench/service/qfw_apps/overhead.py` measures it."""

from __future__ import annotations

import statistics
from typing import Any

from bench.harness.report import Report

PARTS = {
    "parse": "parse and pack, of a text that is new",
    "accept": "request to begin of the run: submit, accept, schedule",
    "run": "run",
    "return": "end of the run to the plugin: commit of the result",
    "yaml": "YAML, more than that of the plugin that does nothing",
}


def print_overhead(report: Report, revision: int, line: dict[str, Any]) -> None:
    """Print times, parts and CPU time by process; add the verdict on the share."""
    own, null = line["times"]["own"], line["times"]["null"]
    for name, values in (("simenv", own), ("nothing", null)):
        low, middle, high = (1e3 * value for value in statistics.quantiles(values, n=4))
        print(f"       {name:8} p25 {low:.2f}  p50 {middle:.2f}  p75 {high:.2f} ms")
    for name, text in PARTS.items():
        print(f"       {text:56} {1e3 * line['parts'][name]:7.3f} ms")
    for name, seconds in line["cpu"]["own"].items():
        print(f"       CPU of {name:49} {1e3 * (seconds - line['cpu']['null'][name]):7.3f} ms")
    print(f"       answers as YAML: {line['sizes']['own']} and {line['sizes']['null']} bytes")
    pairs = zip(_medians(own, line["block"]), _medians(null, line["block"]), strict=True)
    share_ms = 1e3 * statistics.median(ours - nothing for ours, nothing in pairs)
    label = f"revision {revision}: our share of a call, p50 of neighbouring blocks, ms"
    report.at_most(f"share{revision}_p50_ms", share_ms, label)


def _medians(values: list[float], block: int) -> list[float]:
    """Return the median of each block. Blocks are compared with their neighbours, because the
    host's own time drifts by more than the share."""
    return [statistics.median(values[at : at + block]) for at in range(0, len(values), block)]
