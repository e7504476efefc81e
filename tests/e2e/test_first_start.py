"""The first start on a machine: tasks while kernels are compiled."""

from pathlib import Path

import pytest

import simenv

QUBITS = 20
RESULT_S = 300.0


def text(qubits: int) -> str:
    pairs = "".join(f"cx q[{k}],q[{k + 1}];\nt q[{k + 1}];\n" for k in range(qubits - 1))
    return (
        f"OPENQASM 2.0;\ninclude 'qelib1.inc';\nqreg q[{qubits}];\ncreg c[{qubits}];\n"
        f"ry(0.3) q;\n{pairs}ry(0.3) q;\nmeasure q -> c;\n"
    )


def test_few_qubits_need_no_wide_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_KERNELS", str(tmp_path / "kernels"))
    with simenv.local(workers=2, slots=2) as client:
        wide = [client.submit(text(QUBITS), shots=10, engine="statevector") for _ in range(3)]
        client.submit(text(3), shots=10).result(RESULT_S)
        assert not any(task.done() for task in wide)
        assert [len(task.result(RESULT_S).counts) > 0 for task in wide] == [True] * 3
