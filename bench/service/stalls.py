"""Stalls of a service with many clients, and certificates that end within seconds."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.harness import Report, benchmark
from bench.harness.environments import started
from simenv.client.client import connect
from simenv.client.environments import await_gateway
from simenv.config import connection_file
from simenv.errors import SimenvError
from testbed import stalls as stalled
from testbed.gateway_users import QASM3, User

JOB_S = 180.0  # longest wait for one job
PAUSE_S = 0.5


@benchmark(stalls=(30, 2), stall_s=35.0, clients=(50, 8))
def stalls(report: Report, options: Namespace) -> None:
    """Descriptors and threads that stalls of the service leave.

    Half of the clients come over TCP, half over Unix sockets; each runs tasks all the time. The
    service is stopped again and again; its clients replace their silent connections. The figures
    are what the service, its broker and its gateway hold more than before the first stall.
    """
    settings = {"name": "bench-stalls", "start_timeout_s": 600.0, **stalled.OPTIONS}
    with (
        tempfile.TemporaryDirectory() as folder,
        started(settings) as client,
        stalled.crowd(client, Path(folder), options.clients) as people,
    ):
        more = stalled.leaked(client, people, options.stalls, options.stall_s)
        print({name: dict(each) for name, each in more.items()}, f"{sum(people.runs)} tasks")
        for key in ("descriptors", "threads", "dead"):
            report.at_most(key, max(each[key] for each in more.values()))
        report.at_most("errors", len(people.errors))


class Holder:
    """Programs of one kind, one after the other, until the benchmark ends."""

    def __init__(self, run: Callable[[], object], end: threading.Event) -> None:
        self.done, self.lost = 0, list[str]()
        self._run, self._end = run, end
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        while not self._end.wait(PAUSE_S):
            try:
                self._run()
                self.done += 1
            except (SimenvError, TimeoutError, AssertionError, OSError) as error:
                self.lost.append(repr(error)[:200])


def _job_ends(user: User, kind: str) -> None:
    number, state = getattr(user, kind)(), getattr(user, f"{kind}_state")
    end_s = time.monotonic() + JOB_S
    while (found := state(number)) != "Completed":
        if found in ("Failed", "Cancelled") or time.monotonic() > end_s:
            raise TimeoutError(f"{kind} job {number} is {found}")
        time.sleep(PAUSE_S)


@benchmark(minutes=(60.0, 1.0))
def identity_renewal(report: Report, options: Namespace) -> None:
    """Jobs of a user with two tokens, whose certificates last five seconds.

    IBM's and IQM's jobs come under both tokens in turn; a client and QRMI hold a connection with a
    certificate of the credential broker. Every minute a third token is made, used and revoked.
    """
    from simenv.frontends.qrmi import Payload, QuantumResource

    settings = {
        "name": "bench-identity", "start_timeout_s": 600.0,
        "pools": [{"name": "main", "min": 1, "max": 1}],
        "gateway": {"listen": "127.0.0.1:0", "tls": False},
        "identity": {"use": ["keys", "local"], "users": ["nobody-else"], "lifetime_s": 5.0},
    }  # fmt: skip
    with started(settings) as env:
        gateway = await_gateway(connection_file("bench-identity").parent)
        assert gateway is not None
        url, end = gateway.url, threading.Event()
        pair = [User(env, url), User(env, url)]
        service = Path(f"local:{os.getuid()}/bench-identity")
        turns: Counter[str] = Counter()

        def job(kind: str) -> None:
            turns[kind] += 1
            _job_ends(pair[turns[kind] % 2], kind)

        environ = {"main_QRMI_SIMENV_SERVICE": str(service)}
        resource = QuantumResource("main", environ=environ)

        def qrmi() -> None:
            resource.task_result(resource.task_start(Payload.QasmQuantumCircuit(QASM3, 10)))

        with connect(service=service) as client:
            kinds: dict[str, Callable[[], object]] = {
                "ibm": lambda: job("ibm"), "iqm": lambda: job("iqm"),
                "client": lambda: client.run(QASM3, shots=10), "qrmi": qrmi,
            }  # fmt: skip
            holders = {kind: Holder(run, end) for kind, run in kinds.items()}
            end_s = time.monotonic() + 60.0 * options.minutes
            while time.monotonic() < end_s:
                time.sleep(min(60.0, max(0.0, end_s - time.monotonic())))
                third = User(env, url)
                _job_ends(third, "ibm")
                env.tokens.revoke(third.made.token.number)
                third.http.close()
            end.set()
            for holder in holders.values():
                holder.thread.join(JOB_S)
        resource.close()
        for kind, holder in holders.items():
            print(f"{kind}: {holder.done} ended", *holder.lost[:3], sep="\n  ")
            report.at_least("ended", holder.done, kind)
            report.at_most("lost", len(holder.lost), kind)
