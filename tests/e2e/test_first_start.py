"""The first start on a machine: tasks while kernels are compiled."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from live import environment
from shell import shell_of
from waiting import until

import simenv
from simenv.client.tasks import progress
from simulators.compiler import kernel, warmup

QUBITS = 20
RESULT_S = 300.0


def text(qubits: int) -> str:
    pairs = "".join(f"cx q[{k}],q[{k + 1}];\nt q[{k + 1}];\n" for k in range(qubits - 1))
    return (
        f"OPENQASM 2.0;\ninclude 'qelib1.inc';\nqreg q[{qubits}];\ncreg c[{qubits}];\n"
        f"ry(0.3) q;\n{pairs}ry(0.3) q;\nmeasure q -> c;\n"
    )


def without_kernels(folder: Path, *groups: kernel.Group) -> None:
    """Copy the compiled kernels of these tests into a folder, but those of some groups."""
    stored = kernel.version(Path(os.environ["SIMENV_KERNELS"]))
    target = folder / stored.name
    shutil.copytree(stored, target)
    # Other tests store kernels of their own.
    for each in ("tests.", *groups, *(each.name for each in warmup.registered(groups))):
        for file in (*target.glob(f"{each}*"), *target.glob(f"begun/{each}*")):
            file.unlink()


@pytest.mark.slow  # all kernels are compiled from nothing
def test_few_qubits_need_no_wide_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_KERNELS", str(tmp_path / "kernels"))
    with simenv.local(workers=2, slots=2) as client:
        wide = [client.submit(text(QUBITS), shots=10, engine="statevector") for _ in range(3)]
        client.submit(text(3), shots=10).result(RESULT_S)
        assert not any(task.done() for task in wide)
        assert [len(task.result(RESULT_S).counts) > 0 for task in wide] == [True] * 3


def test_killed_compiler_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = tmp_path / "kernels"
    without_kernels(kernels, "attachment")
    monkeypatch.setenv("SIMENV_KERNELS", str(kernels))
    with environment(pools=[{"name": "main", "min": 1, "max": 1}]) as live:
        until(lambda: compilers(live.service().pid), RESULT_S)[0].kill()
        until(lambda: warmup.is_compiled(kernels), RESULT_S)
    done, total = warmup.progress_of(kernels)
    assert done == total == len(warmup.registered(warmup._ALL))


def compilers(service: int) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(service).children(recursive=True):
        with suppress(psutil.Error):
            if "simulators.compiler.warmup" in each.cmdline() and each.status() != "zombie":
                found.append(each)
    return found


def test_first_noisy_circuit_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_kernels(tmp_path / "kernels", "attachment", "noise")
    monkeypatch.setenv("SIMENV_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(progress, "LOG_S", 0.5)
    file = tmp_path / "few.qasm"
    file.write_text(text(3))
    pools = [{"name": "main", "min": 1, "max": 1}]
    with environment(pools=pools, start_timeout_s=600.0) as live:  # it compiles kernels
        result = shell_of(live.name, capfd)("submit", str(file), "--device", "fez", "--wait")
    assert result.code == 0
    # The service or the worker compiles them, whoever needs them first.
    service = r"^the service checks the circuit; the first of its kind waits for kernels, \d:\d\d$"
    worker = r"^t-\w+ (QUEUED|RUNNING) .*\(compiling kernels, once on this machine\)$"
    assert re.search(f"{service}|{worker}", result.err, re.MULTILINE), result.err
