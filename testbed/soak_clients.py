"""Clients of a soak: a process of some threads that submit one known circuit after another.

`python -m testbed.soak_clients PARENT KIND COUNT FOLDER NAME URL TOKEN`. Each client has a
file: a line `s KEY MARK` before an attempt is sent, `f KEY REASON` after an attempt whose outcome
is not known, and `r KEY SECONDS COUNTS` when it has the result. A client that starts again goes on
with the key whose result it lacks. Kinds with idempotency keys repeat the submission with it: it is
one task, and all attempts have one mark. An attempt of the other kinds has a mark of its own.

The mark of a submission is in its circuit, since no other field is carried by all interfaces. By it
the tasks of the journal are matched with what the clients sent.
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
from typing import Any, NamedTuple

import numpy as np

from simenv.client.client import connect
from simenv.client.stream import Stream
from simenv.model.program import decode_program
from simenv.sandbox.die_with_parent import bind_to_parent
from testbed.cluster_environment import SIMENV

KEYED = ("python", "http", "stream")
PAUSE_S = {"python": 1.0, "cli": 30.0, "qpm": 1.0, "http": 1.0, "stream": 1.0}
RETRY_S = 1.0
RESULT_S = 60.0
SHOTS, SEED = 256, 7
Counts = dict[str, int]
Ask = Callable[[str, str], Counts]  # from the key and the circuit of a submission to its counts


class Mark(NamedTuple):
    """Identity of one submission."""

    client: int
    number: int  # of its submissions

    def __str__(self) -> str:
        return f"{self.client}.{self.number}"

    @classmethod
    def of_text(cls, text: str) -> Mark:
        """Return the mark of a line of a client's file."""
        client, number = text.split(".")
        return cls(int(client), int(number))

    @classmethod
    def of_program(cls, packed: bytes) -> Mark:
        """Return the mark of a program of `circuit`, as the service stored it."""
        params = np.frombuffer(decode_program(packed).params)
        return cls(int(params[-2]), int(params[-1]))

    @property
    def circuit(self) -> str:
        """The circuit of a submission: its last gates are diagonal, so that they change no
        counts, and their angles are its mark."""
        return (
            'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\ncreg c[3];\n'
            "h q[0];\ncx q[0],q[1];\nry(0.7) q[2];\n"
            f"rz({self.client}) q[2];\nrz({self.number}) q[2];\nmeasure q -> c;\n"
        )


def _python(name: str, _url: str, _token: str) -> Ask:
    client = connect(name)
    options: Any = {"shots": SHOTS, "seed": SEED}

    def ask(key: str, circuit: str) -> Counts:
        task = client.submit(circuit, idempotency_key=key, **options)
        return dict(task.result(RESULT_S).counts)

    return ask


def _stream(name: str, _url: str, _token: str) -> Ask:
    client = connect(name)

    def ask(key: str, circuit: str) -> Counts:
        with Stream(client, shots=SHOTS) as stream:
            task = stream.submit(circuit, seed=SEED, idempotency_key=key)
        return dict(task.result(RESULT_S).counts)

    return ask


def _qpm(name: str, _url: str, _token: str) -> Ask:
    qpm = connect(name).qpm
    info = {"num_qubits": 3, "num_shots": SHOTS, "seed": SEED}

    def ask(_key: str, circuit: str) -> Counts:
        answer = qpm.sync_run({**info, "qasm": circuit}, timeout=RESULT_S)
        return dict(answer["result"]["result"]["counts"])

    return ask


def _http(_name: str, url: str, token: str) -> Ask:
    def ask(key: str, circuit: str) -> Counts:
        body = json.dumps({"program": circuit, "shots": SHOTS, "seed": SEED}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json",
                   "Idempotency-Key": key}  # fmt: skip
        request = urllib.request.Request(f"{url}/api/v1/tasks?wait=30", body, headers)
        with urllib.request.urlopen(request, timeout=RESULT_S) as answer:
            return dict(json.load(answer)["counts"])

    return ask


def _cli(name: str, _url: str, _token: str) -> Ask:
    def ask(_key: str, circuit: str) -> Counts:
        argv = [str(SIMENV), "--name", name, "--json", "submit", "-", "--wait"]
        argv += ["--shots", str(SHOTS), "--seed", str(SEED)]
        done = subprocess.run(
            argv, input=circuit, capture_output=True, text=True, timeout=RESULT_S, check=True
        )
        return dict(json.loads(done.stdout)["counts"])

    return ask


KINDS = {"python": _python, "cli": _cli, "qpm": _qpm, "http": _http, "stream": _stream}


def _last_open(lines: list[list[str]]) -> tuple[int, str]:
    """Return the number of keys of a client, and the one whose result it lacks; "": none."""
    keys = dict.fromkeys(line[1] for line in lines)
    ended = {line[1] for line in lines if line[0] == "r"}
    return len(keys), next((key for key in keys if key not in ended), "")


def _run(kind: str, file: Path, client: int, name: str, url: str, token: str) -> None:
    lines = whole_lines(file) if file.exists() else []
    count, key = _last_open(lines)
    attempts = sum(line[0] == "s" for line in lines)
    ask: Ask | None = None
    with file.open("a", buffering=1) as out:
        while True:
            if not key:
                key = f"{file.stem}-{count}"
                count += 1
            begin_s = time.monotonic()
            while True:
                mark = Mark(client, count if kind in KEYED else attempts)
                attempts += 1
                print("s", key, mark, file=out)
                try:
                    ask = ask or KINDS[kind](name, url, token)
                    counts = ask(key, mark.circuit)
                    break
                except Exception as error:  # noqa: BLE001 - whatever a fault does: it asks again
                    print("f", key, repr(error)[:300], file=out)
                    ask = None
                    time.sleep(RETRY_S)
            print("r", key, f"{time.monotonic() - begin_s:.4f}", digest(counts), file=out)
            key = ""
            time.sleep(PAUSE_S[kind])


def whole_lines(file: Path) -> list[list[str]]:
    """Return the words of the lines of a client's file; what follows the last line end is not
    complete."""
    text = file.read_text()
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def digest(counts: Counts) -> str:
    """Return counts as one word, without the spaces of registers."""
    return ",".join(f"{bits.replace(' ', '')}:{n}" for bits, n in sorted(counts.items()))


def main(parent: str, kind: str, count: str, folder: str, *where: str) -> None:
    bind_to_parent(int(parent))
    for number in range(int(count)):
        file = Path(folder) / f"{kind}{number}.log"
        client = list(KINDS).index(kind) * int(count) + number
        threading.Thread(target=_run, args=(kind, file, client, *where), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
