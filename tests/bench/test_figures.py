"""Result files, figures, the chart and the command line of the benchmarks."""

import ast
import shutil
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
from failing import fails
from interpreter import python

from bench import __main__ as command, chart, figures, record
from bench.circuits import ansatz_circuit, layered
from bench.harness import results
from bench.harness.benchmark import benchmark, load, titles
from bench.harness.report import Figure, goals
from bench.service import nodes


def test_every_goal_has_a_text_and_a_unit() -> None:
    texts = figures.catalogue()
    described = {name: set(entry) - {"title"} for name, entry in texts.items() if name != "readme"}
    assert described == {name: set(keys) for name, keys in goals().items()}
    assert all(name in texts and key in texts[name] for name, key, _ in texts["readme"])


def test_readme_has_the_table_of_the_stored_figures() -> None:
    table = figures.README.read_text().partition(figures.BEGIN)[2].partition(figures.END)[0]
    assert table == figures.readme_table(), "type: python -m bench chart"
    assert len(table.splitlines()) == 2 + len(figures.catalogue()["readme"])


def test_measurement_replaces_its_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.jsonl"
    shutil.copyfile(figures.STORED, file)
    monkeypatch.setattr(results, "commit", lambda: "new")
    results.append(file, [Figure("small", "of_aer", "3 qubits", 0.5, 0.02)], quick=False)
    results.append(file, [Figure("small", "of_qulacs", "3 qubits", 0.5, 0.02)], quick=True)
    newest = figures.latest(results.read(file))
    assert [each.value for each in newest["small", "of_aer"]] == [0.5]
    assert all(each.commit != "new" for each in newest["small", "of_qulacs"])


def test_tables_show_goals_that_were_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, [Figure("vqls", "step_s", "case", 0.5, 0.1)], quick=False)
    table = figures.performance_tables(file)
    assert "| case | s | <= 0.1 | 0.5 | **no** |" in table
    count = sum(len(keys) for keys in goals().values())
    assert table.count("| not measured |") == count - 1


def test_every_cell_of_the_tables_has_at_most_one_figure() -> None:
    for line in figures.performance_tables().splitlines():
        if line.startswith("|") and "---" not in line:
            measured = line.split("|")[-4].replace("**", "").strip()
            assert " to " not in measured
            assert ";" not in measured


LATENCY = Figure("latency", "accepted_p50_ms", "p50, ms", 0.5, 0.6)
RATE = Figure("throughput", "circuits_4", "circuits a second", 20_000.0, 30_000.0, at_least=True)
UNMEASURED = Figure("small", "of_aer", "of Aer", None, 0.02)


def test_goal_is_met_only_by_measured_value_on_required_side_of_limit() -> None:
    assert LATENCY.met
    assert not RATE.met
    assert not UNMEASURED.met


def test_appended_figures_are_read_back_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, [LATENCY], quick=False)
    results.append(file, [RATE, UNMEASURED], quick=True)
    read = results.read(file)
    assert [(r.benchmark, r.key, r.value, r.goal, r.met) for r in read] == [
        ("latency", "accepted_p50_ms", 0.5, 0.6, True),
        ("throughput", "circuits_4", 20_000.0, 30_000.0, False),
        ("small", "of_aer", None, 0.02, False),
    ]
    assert [r.quick for r in read] == [False, True, True]
    assert all(r.machine and r.cores and r.format == results.FORMAT for r in read)


def test_comparison_gives_ratios_of_the_newest_figures_in_both_files(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    results.append(before, [LATENCY, UNMEASURED], quick=False)
    slower = msgspec.structs.replace(LATENCY, value=1.0)
    results.append(after, [LATENCY, slower, RATE], quick=False)
    _, line, rest = results.compare(results.read(before), results.read(after))
    assert line.split()[:3] == ["0.5", "1", "2.000"]
    assert line.endswith("latency: p50, ms")
    assert rest == "2 figures are in one of the files only"


@pytest.mark.parametrize("text", [b"{}", b"no JSON", b'[{"format": 1}]'])
def test_file_without_results_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(text)
    fails(SystemExit, r"other\.json is no result file", results.read, file)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, [LATENCY], quick=False)
    file.write_bytes(file.read_bytes().replace(b'"format":1', b'"format":2'))
    fails(SystemExit, "has format 2; this version reads 1", results.read, file)


def test_recorded_runs_cover_every_goal_and_can_be_replaced() -> None:
    runs = record.planned(goals(), [["qfw_host", "--qfw", "a"], ["qfw_host", "--qfw", "b"]])
    assert set(runs) == set(goals())
    assert runs["queue"] == [["queue", "--million"]]
    assert runs["qfw_host"] == [["qfw_host", "--qfw", "a"], ["qfw_host", "--qfw", "b"]]
    assert next(iter(runs)) == "throughput"
    fails(SystemExit, "nothing", record.planned, goals(), [["nothing"]])


LATENCY_KEY = [LATENCY.key]


def test_recording_replaces_what_it_measures_and_stores_goals_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.jsonl"
    old = msgspec.structs.replace(RATE, label="a label of before")
    monkeypatch.setattr(results, "commit", lambda: "old")
    results.append(file, [LATENCY, old], quick=False)
    monkeypatch.setattr(results, "commit", lambda: "new")
    monkeypatch.setattr(results, "has_code_of", lambda revision: revision == "new")
    monkeypatch.setattr(record.kernels, "compile_kernels", lambda folder: None)
    monkeypatch.setattr(record, "_measured", lambda run, limit_s: ([RATE], f"after {limit_s} s"))
    assert command.main(["record", "throughput", "--file", str(file)]) == 1
    read = results.read(file)
    assert [each.benchmark for each in read if each.commit == "old"] == ["latency"]
    assert {each.key for each in read if each.commit == "new"} == set(goals()["throughput"])
    assert [each.key for each in read if each.value is not None] == [*LATENCY_KEY, "circuits_4"]
    output = capsys.readouterr().out
    assert "NOT MEASURED throughput circuits_8: no figure of this run: after 1800.0 s" in output
    count = len(goals()["throughput"])
    assert f"0 figures meet their goals, 1 miss them, {count - 1} were not measured" in output
    command.main(["record", "throughput", "--file", str(file)])
    assert "recorded already at new" in capsys.readouterr().out
    monkeypatch.setattr(results, "commit", lambda: "new+")
    with pytest.raises(SystemExit, match="commit the changes first"):
        command.main(["record", "--all", "--file", str(file)])


def test_figures_of_other_code_or_of_an_unknown_commit_leave_a_recording() -> None:
    if not results.commit():
        pytest.skip("this is no checkout of git")
    assert results.has_code_of("HEAD")
    assert not results.has_code_of("4b825dc642cb6eb9a060e54bf8d69288fbee4904")  # git's empty tree
    assert not results.has_code_of("no-such-commit")


def test_benchmark_that_cannot_run_here_is_named_and_its_older_figures_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.jsonl"
    host = Figure("qfw_host", "rows1", "rows", 15.0, 15.0, at_least=True)
    monkeypatch.setattr(results, "commit", lambda: "old")
    results.append(file, [host], quick=False)
    monkeypatch.setattr(results, "commit", lambda: "new")
    monkeypatch.setattr(results, "has_code_of", lambda revision: revision == "new")
    monkeypatch.setattr(record.kernels, "compile_kernels", lambda folder: None)
    limits: dict[str, float] = {}

    def measured(run: list[str], limit_s: float) -> tuple[list[Figure], str]:
        limits[run[0]] = limit_s
        keys = goals().get(run[0], {}).items()
        return [Figure(run[0], key, key, goal, goal) for key, goal in keys], ""

    monkeypatch.setattr(record, "_measured", measured)
    monkeypatch.setitem(record.UNAVAILABLE, "gpu", lambda: "no GPU: none is here")
    for name in ("noise_calibration", "emulators"):
        monkeypatch.setitem(record.UNAVAILABLE, name, str)
    options = ["record", "--all", "--file", str(file)]
    assert command.main(options) == 1
    output = capsys.readouterr().out
    assert f"NOT MEASURED gpu, all {len(goals()['gpu'])} goals: no GPU: none is here\n" in output
    assert "goals: name the host: --with 'qfw_host --qfw FOLDER" in output
    assert "older figures stay, of old\n" in output
    assert limits["soak"] == 10_800.0
    assert limits["latency"] == record.LIMIT_S
    assert not {"gpu", "qfw_host"} & set(limits)
    read = results.read(file)
    assert [each.commit for each in read if each.benchmark == "qfw_host"] == ["old"]
    assert {each.benchmark for each in read} == set(goals()) - {"gpu"}

    monkeypatch.setitem(record.UNAVAILABLE, "gpu", str)
    assert command.main([*options, "--with", "qfw_host --qfw a --defw b"]) == 0
    output = capsys.readouterr().out
    assert "NOT MEASURED gpu" not in output
    assert "NOT MEASURED qfw_host" not in output
    read = results.read(file)
    assert {each.commit for each in read} == {"new"}


def test_a_run_over_its_limit_is_ended_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "QUIET_PERCENT", 100.0)
    assert record._measured(["vqls"], 0.05) == ([], "vqls was ended after its limit of 0.05 s")


def test_a_run_that_fails_gives_the_last_line_of_its_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record, "QUIET_PERCENT", 100.0)
    figures, failure = record._measured(["vqls", "--no-such-option"], 60.0)
    assert figures == []
    assert failure.endswith("error: unrecognized arguments: --no-such-option")


def test_limits_are_of_benchmarks() -> None:
    assert set(record.LIMITS_S) <= set(goals())
    assert set(record.UNAVAILABLE) <= set(goals())


def measured(tmp_path: Path, values: dict[str, tuple[float, ...]]) -> list[results.Result]:
    """Results of the chart's bars: `values` by goal, else 0.5."""
    figures = [
        Figure(bar.benchmark, bar.key, f"case {number}", value, 1.0)
        for bar in chart.BARS
        for number, value in enumerate(values.get(bar.key, (0.5,)))
    ]
    file = tmp_path / "results.jsonl"
    results.append(file, figures, quick=False)
    return results.read(file)


def test_bars_are_medians_of_the_speed_ups_with_their_range(tmp_path: Path) -> None:
    rows = chart.speed_ups(measured(tmp_path, {"aer_24": (0.1, 0.05, 0.02)}))
    assert [row[1:] for row in rows if row[0].key == "aer_24"] == [(20.0, 10.0, 50.0)]
    assert all(row[1:] == (2.0, 2.0, 2.0) for row in rows if row[0].key != "aer_24")


def test_missing_figure_is_refused_with_the_command_that_measures_it(tmp_path: Path) -> None:
    entries = [each for each in measured(tmp_path, {}) if each.benchmark != "observables"]
    fails(SystemExit, "python -m bench run observables --json FILE", chart.speed_ups, entries)


def test_chart_is_byte_identical_for_equal_figures_measured_later(tmp_path: Path) -> None:
    values = measured(tmp_path, {})
    first, second = tmp_path / "a" / "first.svg", tmp_path / "second.svg"
    chart.draw(values, first)
    later = [msgspec.structs.replace(value, time_s=value.time_s + 1) for value in values]
    chart.draw(later, second)
    assert first.read_bytes() == second.read_bytes()
    assert all(bar.peer in first.read_text() for bar in chart.BARS)


def test_stored_chart_shows_the_stored_figures(tmp_path: Path) -> None:
    chart.draw(results.read(figures.STORED), tmp_path / "chart.svg")
    stored = figures.ROOT / "docs/images/performance.svg"
    assert stored.read_text() == (tmp_path / "chart.svg").read_text(), "python -m bench chart"


ROOT = Path(__file__).parents[2]


def test_list_names_every_benchmark_without_importing_it() -> None:
    done = python("-X", "importtime", "-m", "bench", "list", cwd=ROOT)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(titles())
    assert "bench.service" not in done.stderr


def test_every_benchmark_has_a_title_and_goals() -> None:
    assert titles().keys() == goals().keys()
    assert all(title for _, title in titles().values())


def test_every_benchmark_can_be_loaded_and_declares_the_options_that_it_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    declared: dict[str, set[str]] = {}
    for name, (module, title) in titles().items():
        loaded = load(name)
        with pytest.raises(SystemExit, match="0"):
            loaded.run(["--help"], on_figure=print)
        assert title in capsys.readouterr().out
        declared.setdefault(module, set()).update(loaded.options)
    for module, options in declared.items():
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        places = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        read = {each.attr for each in places if ast.unparse(each.value) == "options"}
        assert read <= options, module


def test_options_have_a_quick_default_and_help_tells_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = []

    @benchmark(rounds=(5, 2), names=[""], tcp=False, file=Path, only={"x": 1, "y": 2})
    def small(_report: object, options: object) -> None:
        """Title.

        Text.
        """
        seen.append(options)

    words = ["--names", "b", "c", "--tcp", "--file", "f", "--only", "y", "--only", "x"]
    assert small.run(words, quick=True, on_figure=print)
    assert vars(seen[0]) == {
        "rounds": 2, "names": ["b", "c"], "tcp": True, "file": Path("f"), "only": ["y", "x"],
    }  # fmt: skip
    small.run([], quick=False, on_figure=print)
    assert (seen[1].rounds, seen[1].tcp, seen[1].file) == (5, False, None)
    with pytest.raises(SystemExit):
        small.run(["--help"], quick=False, on_figure=print)
    text = capsys.readouterr().out
    assert "Text." in text
    assert "default: 5" in text


def test_name_that_is_no_part_of_a_benchmark_is_refused_with_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @benchmark(parts=(["first", "second", "third"], ["first"]))
    def small(_report: object, options: object) -> None:
        """Title."""
        seen.append(vars(options)["parts"])

    seen: list[list[str]] = []
    small.run(["--parts", "third"], quick=True, on_figure=print)
    small.run([], quick=True, on_figure=print)
    assert seen == [["third"], ["first"]]
    for words in (["--parts", "nonsense"], ["--parts"]):
        with pytest.raises(SystemExit):
            small.run(words, on_figure=print)
    text = capsys.readouterr().err
    assert "invalid choice: 'nonsense'" in text
    assert "third" in text


def test_options_of_one_benchmark_are_refused_for_several() -> None:
    with pytest.raises(SystemExit, match="--rounds 1, need a single NAME"):
        command.main(["run", "small", "wide", "--rounds", "1"])


def test_cluster_runs_all_parts_or_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[str] = []
    monkeypatch.setattr(nodes, "hosts", lambda number: nullcontext())
    for part in nodes.PARTS:
        monkeypatch.setitem(nodes.PARTS, part, lambda *_, part=part: parts.append(part))
    assert command.main(["run", "cluster"]) == 0
    assert command.main(["run", "cluster", "--only", "death", "--only", "gang"]) == 0
    assert parts == [*nodes.PARTS, "death", "gang"]


def test_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fails(SystemExit, "", command.main, ["run", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_circuits_are_reproducible_by_seed() -> None:
    first, again, other = layered(4, 30, 2, 7), layered(4, 30, 2, 7), layered(4, 30, 2, 8)
    assert first == again
    assert first[0] != first[1] != other[1]
    assert sum(first[0].count_ops().values()) == 30 + 4
    sweep = ansatz_circuit(8, 32, 68)
    assert (sweep.num_parameters, sum(sweep.count_ops().values())) == (32, 68 + 8)
