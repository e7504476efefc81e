"""`simenv bench` measures what it says, and its goals are those of the repository."""

from __future__ import annotations

import tomllib
from pathlib import Path

import live
import pytest
from shell import Shell

from simenv.cli.bench import cases, command
from simenv.cli.bench.cases import Figure, figure
from simenv.cli.bench.circuits import ansatz, layered

ROOT = Path(__file__).parents[4]
TINY = cases.CaseSize(2, 3, {4: 5, 8: 3, 12: 2}, 3, {4: 10, 8: 4}, 2, 3)


def test_bench_reports_every_figure(
    environment: live.Live, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "QUICK", TINY)
    result = shell("bench", "--quick", "--json")
    assert result.code == 0, result.err
    names = [row["name"] for row in result.objects]
    assert names == [
        "latency p50", "latency p99", "circuits 4", "circuits 8", "circuits 12", "one by one",
        "bindings 4", "bindings 8", "loop p50", "engine 4", "engine 8", "engine 10", "engine 12",
    ]  # fmt: skip
    assert all(tuple(row) == Figure.__struct_fields__ for row in result.objects)
    assert all(row["value"] > 0 and row["rounds"] == 2 for row in result.objects)
    assert "2 workers" in result.err
    with environment.client() as client:
        assert sum(len(block) for block in command.figures(client, TINY)) == len(names)


def test_goal_is_met_when_median_reaches_it() -> None:
    assert figure("x", [1.0, 9.0, 2.0], "ms", 3.0, "", less=True).met == "yes"
    assert figure("x", [1.0, 9.0, 4.0], "ms", 3.0, "", less=True).met == "no"
    assert figure("x", [1.0], "1/s", 3.0, "").met == "no"
    assert figure("x", [3.0], "1/s", 3.0, "").met == "yes"
    assert figure("x", [3.0], "1/s", 0.0, "").met == "-"


def test_bench_goals_equal_goals_toml() -> None:
    goals = tomllib.loads((ROOT / "bench" / "goals.toml").read_text())
    throughput = goals["throughput"]
    assert cases.LATENCY_MS["accepted"] == goals["latency"]["accepted_p50_ms"]
    assert cases.LATENCY_MS["process"] == goals["latency"]["process_p50_ms"]
    assert {n: throughput[f"circuits_{n}"] for n in cases.CIRCUITS} == cases.CIRCUITS
    assert {n: throughput[f"bindings_{n}"] for n in cases.BINDINGS} == cases.BINDINGS
    assert (throughput["alone"], throughput["loop_128_ms"]) == (cases.ALONE, cases.LOOP_MS)


def test_bench_circuits_are_reproducible_by_seed() -> None:
    first, again, other = layered(4, 30, 2, 7), layered(4, 30, 2, 7), layered(4, 30, 2, 8)
    assert first == again
    assert first[0] != first[1] != other[1]
    assert sum(first[0].count_ops().values()) == 30 + 4
    sweep = ansatz(8, 32, 68)
    assert (sweep.num_parameters, sum(sweep.count_ops().values())) == (32, 68 + 8)
