"""Clients of a soak: a process of some threads that submit one known circuit after another.

`python -m bench.testbed.soak_clients KIND COUNT FOLDER NAME URL TOKEN`. Each client has a file: a
line `s KEY` before a submission is sent, `f KEY` after an attempt whose outcome is not known, and
`r KEY SECONDS EQUAL` when it has the result. A client that starts again goes on with the key whose
result it lacks. Kinds with idempotency keys repeat the submission with it: it is one task.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness.environments import SIMENV
from simenv.client.client import connect
from simenv.client.stream import Stream
from simenv.process import die_with_parent

KEYED = ("python", "http", "stream")
PAUSE_S = {"python": 1.0, "cli": 30.0, "qpm": 1.0, "http": 1.0, "stream": 1.0}
RETRY_S = 1.0
RESULT_S = 60.0
QASM = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\ncreg c[3];\n'
    "h q[0];\ncx q[0],q[1];\nry(0.7) q[2];\nmeasure q -> c;\n"
)
SHOTS, SEED = 256, 7
Counts = dict[str, int]
Ask = Callable[[str], Counts]  # from the key of a submission to its counts


def _python(name: str, _url: str, _token: str) -> Ask:
    client = connect(name)
    options: Any = {"shots": SHOTS, "seed": SEED}
    return lambda key: client.submit(QASM, idempotency_key=key, **options).result(RESULT_S).counts


def _stream(name: str, _url: str, _token: str) -> Ask:
    client = connect(name)

    def ask(key: str) -> Counts:
        with Stream(client, shots=SHOTS) as stream:
            task = stream.submit(QASM, seed=SEED, idempotency_key=key)
        return dict(task.result(RESULT_S).counts)

    return ask


def _qpm(name: str, _url: str, _token: str) -> Ask:
    qpm = connect(name).qpm
    info = {"qasm": QASM, "num_qubits": 3, "num_shots": SHOTS, "seed": SEED}

    def ask(_key: str) -> Counts:
        answer = qpm.sync_run(info, timeout=RESULT_S)
        return dict(answer["result"]["result"]["counts"])

    return ask


def _http(_name: str, url: str, token: str) -> Ask:
    body = json.dumps({"program": QASM, "shots": SHOTS, "seed": SEED}).encode()

    def ask(key: str) -> Counts:
        request = urllib.request.Request(
            f"{url}/api/v1/tasks?wait=30",
            body,
            {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Idempotency-Key": key,
            },
        )
        with urllib.request.urlopen(request, timeout=RESULT_S) as answer:
            return dict(json.load(answer)["counts"])

    return ask


def _cli(name: str, _url: str, _token: str) -> Ask:
    def ask(_key: str) -> Counts:
        argv = [str(SIMENV), "--name", name, "--json", "submit", "-", "--wait"]
        argv += ["--shots", str(SHOTS), "--seed", str(SEED)]
        done = subprocess.run(
            argv, input=QASM, capture_output=True, text=True, timeout=RESULT_S, check=True
        )
        return dict(json.loads(done.stdout)["counts"])

    return ask


KINDS = {"python": _python, "cli": _cli, "qpm": _qpm, "http": _http, "stream": _stream}


def _last_open(file: Path) -> tuple[int, str]:
    """Return the number of keys of a client, and the one whose result it lacks; "": none."""
    lines = file.read_text().splitlines() if file.exists() else []
    keys = dict.fromkeys(line.split()[1] for line in lines)
    ended = {line.split()[1] for line in lines if line.startswith("r ")}
    return len(keys), next((key for key in keys if key not in ended), "")


def _run(kind: str, file: Path, name: str, url: str, token: str) -> None:
    count, key = _last_open(file)
    ask: Ask | None = None
    with file.open("a", buffering=1) as out:
        while True:
            if not key:
                key = f"{file.stem}-{count}"
                count += 1
            begin_s = time.monotonic()
            print("s", key, file=out)
            while True:
                try:
                    ask = ask or KINDS[kind](name, url, token)
                    counts = ask(key)
                    break
                except Exception as error:  # noqa: BLE001 - whatever a fault does: it asks again
                    print("f", key, repr(error)[:300], file=out)
                    ask = None
                    time.sleep(RETRY_S)
            print("r", key, f"{time.monotonic() - begin_s:.4f}", digest(counts), file=out)
            key = ""
            time.sleep(PAUSE_S[kind])


def digest(counts: Counts) -> str:
    """Return counts as one word, without the spaces of registers."""
    return ",".join(f"{bits.replace(' ', '')}:{n}" for bits, n in sorted(counts.items()))


def main(kind: str, count: str, folder: str, *where: str) -> None:
    die_with_parent(0)
    for number in range(int(count)):
        file = Path(folder) / f"{kind}{number}.log"
        threading.Thread(target=_run, args=(kind, file, *where), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
