"""What a user types wrong: a typed refusal each, with exit code 2 or 3, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from circuits import tangled
from live import Live, environment
from qiskit import qasm2

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
REFUSE_S = 60.0  # that nothing hangs; the benchmark cold_start has the figure


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment() as result:
        yield result


def submit(live: Live, text: bytes, tmp_path: Path, *options: str) -> tuple[int, str, str]:
    path = tmp_path / "try.qasm"
    path.write_bytes(text)
    simenv = Path(sys.executable).with_name("simenv")
    argv = [simenv, "submit", path, "--wait", "--name", live.name, *options]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env=os.environ
    )
    return done.returncode, done.stdout, done.stderr


CASES = {
    "too wide": (
        qasm2.dumps(tangled()).encode(),
        3,
        "qubits",
    ),
    "syntax": ((HEAD + "qreg q[2];\nh q[0]\nh q[1];").encode(), 2, ":5:1"),
    "unknown gate": ((HEAD + "qreg q[2];\nfoo q[0];").encode(), 2, "foo"),
    "million qubits": ((HEAD + "qreg q[1000000];\nh q[0];").encode(), 3, "1000000"),
    "NaN angle": ((HEAD + "qreg q[1];\nrz(0/0) q[0];").encode(), 2, ":4:"),
    "comment": ((HEAD + "// " + "x" * 50_000_000).encode(), 3, "16"),
    "nesting": (
        (HEAD + "qreg q[1];rz(" + "(" * 5000 + "1" + ")" * 5000 + ") q[0];").encode(),
        2,
        "200",
    ),
    "include": (b'OPENQASM 2.0;\ninclude "/etc/passwd";\nqreg q[1];', 2, ":2:"),
    "noise": (os.urandom(3000), 2, ""),
    "counts of nothing": ((HEAD + "qreg q[1];h q[0];").encode(), 2, "measure"),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_program_is_refused_with_exit_code_and_message(
    case: str, live: Live, tmp_path: Path
) -> None:
    text, code, word = CASES[case]
    begin = time.monotonic()
    value, out, err = submit(live, text, tmp_path)
    assert time.monotonic() - begin < REFUSE_S
    assert "Traceback" not in err
    assert value in (2, 3)
    assert value == code, err
    assert err.startswith("error: ")
    assert word in err, err
    assert out == ""


def test_refusal_of_too_wide_circuit_names_largest_width(live: Live, tmp_path: Path) -> None:
    _, _, err = submit(live, CASES["too wide"][0], tmp_path)
    with live.client() as env:
        widest = env.status().max_qubits
    assert f"{widest} qubits" in err


def test_refusal_with_json_option_is_json_object(live: Live, tmp_path: Path) -> None:
    code, out, err = submit(live, CASES["unknown gate"][0], tmp_path, "--json")
    document = json.loads(out.splitlines()[-1])
    assert code == 2
    assert document["error"]["code"] == "program"
    assert err


def test_service_is_up_with_empty_queue_after_refusals(live: Live) -> None:
    with live.client() as env:
        assert env.status().queued == 0
        assert env.pools()["main"].state == "up"
