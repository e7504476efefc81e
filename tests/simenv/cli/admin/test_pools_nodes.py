"""An environment is steered while it runs: pools scaled, nodes drained, and what is said of it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from shell import Shell

from simenv import errors
from simenv.cli import app
from simenv.errors import (
    BatchRefusedError,
    NotFoundError,
    SimenvError,
    SlurmError,
    SlurmFileError,
    VersionMismatchError,
)
from simenv.frontends.slurm import LICENSES, jobs

POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "spare", "engine": "stabilizer", "min": 0, "max": 2, "nodes": "*"},
]
HERE = os.uname().nodename
BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")
POOL_KEYS = [
    "name", "engine", "workers", "target", "busy", "waiting", "state", "reason", "backlog_us",
    "held_us", "ranks", "most", "max_qubits", "nodes", "on_demand", "least", "kept",
    "wait_us", "wait_off_by", "wait_age_us", "closed", "closed_reason",
]  # fmt: skip
NODE_KEYS = [
    "name", "state", "reason", "slots", "slots_granted", "memory_bytes", "memory_granted",
    "workers", "ranks", "gpus", "features", "source", "end_s",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        (("spare", "1"), 1, 1),
        (("spare", "--max", "4"), 1, 4),
        (("spare", "--min", "0"), 0, 4),
        (("spare", "--min", "0", "--max", "2"), 0, 2),
    ],
)
def test_scale_sets_bounds(shell: Shell, words: tuple[str, ...], least: int, most: int) -> None:
    result = shell("scale", *words, "--json", code=0)
    assert list(result.object) == POOL_KEYS
    assert (result.object["least"], result.object["most"]) == (least, most)
    (row,) = [each for each in shell("pools", "--json").objects if each["name"] == "spare"]
    assert (list(row), row["least"], row["most"]) == (POOL_KEYS, least, most)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("scale", "spare"), 2),
        (("scale", "spare", "2", "--max", "3"), 2),
        (("scale", "spare", "--min", "3", "--max", "2"), 2),
        (("scale", "spare", "65537"), 2),
        (("scale", "nobody", "2"), 4),
        (("drain", HERE), 2),
        (("drain", HERE, "--reason", " "), 2),
        (("drain", HERE, "--reason", "x" * 501), 2),
    ],
)
def test_exit_codes_of_scale_and_drain(shell: Shell, words: tuple[str, ...], code: int) -> None:
    assert shell(*words).code == code


@pytest.mark.parametrize("words", [("drain", "elsewhere", "--reason", "x"), ("undrain", "nobody")])
def test_drain_of_unknown_node_names_known_nodes(shell: Shell, words: tuple[str, ...]) -> None:
    assert HERE in shell(*words, code=4).err


def test_pools_and_workers_show_their_nodes(shell: Shell) -> None:
    rows = shell("pools", "-o", "pool,nodes,max", "--no-header").out.splitlines()
    assert rows[0].split("\t") == ["main", HERE, "1"]
    workers = shell("workers", "--pool", "main", "-o", "node,ranks", "--no-header").out
    assert workers.splitlines() == [f"{HERE}\t1"]


def test_drained_pool_starts_nothing_and_shows_the_reason_until_undrain(shell: Shell) -> None:
    done = shell("drain", "main", "--reason", "cold head")
    assert done.out == "pool main is paused (cold head): 1 ready of 1 workers wanted\n"
    try:
        rows = shell("pools", "-o", "pool,state,reason", "--no-header").out.splitlines()
        assert rows[0].split("\t") == ["main", "paused", "(cold head)"]
        assert "WARN     pool main is paused: cold head" in shell("status").out
        task = shell("submit", BELL, "--pool", "main").out.strip()
        queue = shell("queue", "--json").objects
        assert [each["reason"] for each in queue if each["id"] == task] == [
            "pool main is paused: cold head, 1st in line"
        ]
    finally:
        again = shell("undrain", "main")
    assert again.out == "pool main is up: 1 ready of 1 workers wanted\n"
    assert shell("result", task).code == 0
    kinds = [each["kind"] for each in shell("events", "--kind", "device", "--json").objects]
    assert kinds[-2:] == ["device.paused", "device.resumed"]


def test_status_shows_drained_node_with_reason_until_resume(shell: Shell) -> None:
    outcome = shell("drain", HERE, "--reason", "the fan", "--json", code=0)
    assert list(outcome.object) == NODE_KEYS
    assert (outcome.object["state"], outcome.object["reason"]) == ("drained", "the fan")
    screen = shell("status").out
    assert f"WARN     node {HERE} is drained: the fan" in screen
    assert f"node.drained  {HERE}  the fan" in screen
    assert "NODES    1 drained " in screen
    (node,) = shell("status", "--json").object["nodes"]
    assert list(node) == NODE_KEYS
    result = shell("undrain", HERE)
    assert (result.code, result.out.startswith(f"node {HERE} is up; ")) == (0, True)
    assert "node.resumed" in shell("status").out


def test_gateway_env_has_variables_of_pools_and_of_devices_that_are_named(shell: Shell) -> None:
    words = ("gateway", "env", "--url", "http://127.0.0.1:1", "--json")
    pools = {row["name"] for row in shell("pools", "--json").objects} - {"functions"}
    result = shell(*words, code=0)
    names = set(result.object["QRMI_JOB_QPU_RESOURCES"].split(","))  # other tests import devices
    assert names >= pools
    assert "fez" not in names
    more = shell(*words, "--device", "fez").object
    assert set(more["QRMI_JOB_QPU_RESOURCES"].split(",")) == {*names, "fez"}
    assert shell(*words, "--device", "fes").code == NotFoundError.exit_code


SCONTROL = """\
#!/bin/sh
for each in fez:4 $(sed -n 's/^Licenses=//p' {file} | tr , ' '); do
    [ "$2" != licenses ] || echo "LicenseName=${{each%:*}} Total=${{each#*:}} Used=0 Free=0"
done
[ "$1" != create ] || echo "$*" >> {log}
"""


OF_SERVICE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, SimenvError)
    and not issubclass(kind, SlurmError | SlurmFileError | BatchRefusedError | VersionMismatchError)
]


def controller(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Write the file of licences and Slurm's commands; return the log of what is held back."""
    licences, log = folder / LICENSES, folder / "log"
    licences.parent.mkdir()
    licences.write_text(text)
    log.touch()
    for name, script in (
        ("scontrol", SCONTROL.format(log=log, file=licences)),
        ("squeue", "#!/bin/sh\n"),
    ):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.mark.parametrize("kind", OF_SERVICE)
@pytest.mark.parametrize("is_connected", [False, True])
def test_licences_are_held_while_the_service_cannot_be_used(
    kind: type[SimenvError],
    is_connected: bool,
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another version of the service, which comes next, ends the command."""
    log = controller(tmp_path, monkeypatch, "# simenv pools: fez\nLicenses=fez:4\n")
    waiting: list[SimenvError] = [kind("not now"), VersionMismatchError("of another version")]
    closed: list[bool] = []

    def refuse(*_: object, **__: object) -> object:
        raise waiting.pop(0)

    def connect(*_: object, **__: object) -> object:
        return SimpleNamespace(close=lambda: closed.append(True))

    monkeypatch.setattr(app.Settings, "connect", connect if is_connected else refuse)
    monkeypatch.setattr(jobs, "reconcile", refuse)
    words = ("slurm", "sync", "--every", "0.01", "--cluster", "big", "--conf", str(tmp_path))
    answer = shell(*words)
    assert answer.code == VersionMismatchError.exit_code, answer
    assert "not now" in answer.err
    assert len(closed) == 2 * is_connected
    held = log.read_text().splitlines()
    assert [line.endswith("Licenses=fez:4") for line in held] == [True, True]


def test_licences_of_a_pool_that_is_gone_are_held_alone(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = controller(tmp_path, monkeypatch, "Licenses=main:1,gone:2\n")
    words = ("slurm", "sync", "--pool", "main", "--pool", "gone", "--cluster", "big")
    answer = shell(*words, "--conf", str(tmp_path))
    assert answer.code == NotFoundError.exit_code, answer
    assert "there is no pool 'gone'" in answer.err
    (held,) = log.read_text().splitlines()
    assert held.endswith("Licenses=gone:2")


def test_error_of_the_file_of_licences_holds_none(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = controller(tmp_path, monkeypatch, "PartitionName=a\n")
    passes = iter([jobs.Reconciled([], []), jobs.Reconciled([], [])])
    held: list[str] = []

    def reconcile(*_: object) -> jobs.Reconciled:
        held.append(log.read_text())
        if (done := next(passes, None)) is None:
            raise VersionMismatchError("of another version")
        return done

    monkeypatch.setattr(jobs, "reconcile", reconcile)
    words = ("slurm", "sync", "--every", "0.01", "--pool", "fez", "--cluster", "big")
    answer = shell(*words, "--conf", str(tmp_path))
    assert answer.code == VersionMismatchError.exit_code, answer
    assert answer.err.count("the file of licences has the line 'PartitionName=a'") == 1
    assert held == ["", "", ""]
