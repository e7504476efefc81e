"""State of a check run, and the clients of the QPM under check.

Invariant of `CheckedClient`, with or without an event queue: each answer is tested for values that
are not plain data. `CheckSession` is a running QPM, its clients, and circuits in progress.
Invariant: after each check its running circuits are cancelled and its reservations released, so
that checks do not affect one another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from simenv.qpm_check import circuits, target as targets
from simenv.qpm_check.target import CheckFailed, expect, named, short_repr


class CheckedClient:
    """Methods of a client; each answer is tested for values that are not plain data."""

    def __init__(self, link: targets.ClientConnection, impure: dict[str, str]) -> None:
        self.link = link
        self._impure = impure

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.link.methods, name)

        def call(*args: Any, **named_ones: Any) -> Any:
            answer = method(*args, **named_ones)
            for place in targets.impurities(answer):
                self._impure.setdefault(name, place)
            return answer

        return call


class EventListener:
    """A client and its event queue. `register` registers it with the QPM."""

    def __init__(self, client: CheckedClient, sink: targets.ClientEventSink, wait_s: float) -> None:
        self.q = client
        self.sink = sink
        self._wait_s = wait_s

    def register(self, evtype: Any, **more: Any) -> Any:
        return self.q.register_event_notification(self.sink.ep, evtype, self.sink.class_id, **more)

    def taken(self) -> targets.ReceivedEvent:
        """Return the next event. Raises CheckFailed if none comes in time."""
        event = self.sink.take(self._wait_s)
        expect(event is not None, f"no event within {self._wait_s:g} s")
        assert event is not None
        return event

    @property
    def seen(self) -> int:
        return self.sink.seen()


def counts_of(record: Any) -> dict[str, int]:
    """Counts of a record of either revision."""
    result = record.get("result") if isinstance(record, dict) else None
    if isinstance(result, dict) and isinstance(result.get("counts"), dict):
        result = result["counts"]
    expect(isinstance(result, dict), f"the record has no counts: {short_repr(record)}")
    counts: dict[str, int] = result  # type: ignore[assignment]
    return counts


Plain = dict[str, Any]
Answer = TypeVar("Answer")
LOOK_S = 0.005
WAIT_S = 30.0
AHEAD = (3, 6, 12, 24)  # numbers of long circuits to submit until one waits
LOOKS = 4
LENGTHENED = 3
SHOTS = 100
REFUSED = "DEFwExecutionError"


class LongRuns:
    """Runs of a circuit that takes about a second, so that it can be met while it waits or runs."""

    def __init__(self, session: CheckSession, circuit: circuits.LongCircuit) -> None:
        self._session = session
        self._circuit = circuit

    @property
    def max_qubits(self) -> int:
        """Largest width of a check's circuit."""
        return self._circuit.max_qubits

    @property
    def text(self) -> str:
        """OpenQASM 2 text of the circuit, which takes about a second with `shots` shots."""
        return self._circuit.text(self._try_circuit)

    @property
    def shots(self) -> int:
        """Shots of the circuit."""
        return self._circuit.shots

    @property
    def gates(self) -> int:
        """Number of one-qubit gates of the circuit in all its shots."""
        return self._circuit.gates(self._try_circuit)

    def _try_circuit(self, qasm: str, shots: int) -> Plain:
        return self._session.run(qasm, num_shots=shots)

    def lengthen(self) -> bool:
        """Lengthen the circuit. False if no longer one is possible."""
        return self._circuit.lengthen()

    def info(self) -> Plain:
        """`info` of the circuit."""
        text = self.text  # determines the number of shots
        return self._session.info(text, num_shots=self.shots)

    def submit(self, *, under: Plain | None = None, by: CheckedClient | None = None) -> str:
        """Submit the circuit and return its cid."""
        return str(self._session.accept(self.info(), under=under, by=by)[0])

    def running(self) -> str:
        """Submit the circuit and return its cid once it runs."""
        for _ in range(LENGTHENED):
            cid = self.submit()
            if self.wait_until_running(lambda cid=cid: self._session.status(cid)):  # type: ignore[misc]
                return cid
            if not self.lengthen():
                break
        raise CheckFailed("submitted: a long circuit was completed, and never seen so before")

    def wait_until_running(self, status: Callable[[], Plain]) -> bool:
        """Wait until the circuit is "submitted"; False if it completed without being seen so."""

        def state() -> str:
            result = status()["lifecycle_state"]
            return result if result in ("submitted", "completed") else ""

        return self._session.until(state, "submitted") == "submitted"

    def waiting(self) -> str:
        """Return the cid of a waiting circuit, behind others that occupy all workers."""
        for _ in range(LENGTHENED):
            for count in AHEAD:
                cid = [self.submit() for _ in range(count)][-1]
                if all(self._waits(cid) for _ in range(LOOKS)):
                    return cid
            if not self.lengthen():
                break
        raise targets.CheckSkipped(f"of {sum(AHEAD)} long circuits none had to wait")

    def _waits(self, cid: str) -> bool:
        """Return whether the circuit still waits after LOOK_S."""
        time.sleep(LOOK_S)
        return self._session.status(cid)["lifecycle_state"] in (
            "queued",
            "capacity-held",
            "created",
        )


class CheckSession:
    """One QPM under check, in one revision."""

    def __init__(
        self,
        target: targets.CheckTarget,
        subject: targets.QPMInstance | None,
        revision: int,
        long_circuit: circuits.LongCircuit,
        wait_s: float = WAIT_S,
    ) -> None:
        self.target = target
        self._subject = subject
        self.revision = revision
        self.wait_s = wait_s  # limit of a wait for an expected event
        self._impure: dict[str, str] = {}
        self.long = LongRuns(self, long_circuit)
        self._links: list[targets.ClientConnection] = []
        self._cids: list[tuple[str, Plain, CheckedClient]] = []  # cid, reservation, client
        self._reserved: list[int] = []
        self._listeners: list[EventListener] = []
        self._shared_reservation: int | None = None
        self._reservation_requested = False
        self._q: CheckedClient | None = None

    @property
    def subject(self) -> targets.QPMInstance:
        """Running QPM of checks that need one."""
        assert self._subject is not None
        return self._subject

    @property
    def q(self) -> CheckedClient:
        """First client."""
        if self._q is None:
            self._q = self.connect()
        return self._q

    @property
    def control(self) -> Any:
        """Control connection to the DEFw double; targets with a transport only."""
        subject: Any = self.subject
        return subject.control

    def connect(self) -> CheckedClient:
        """Connect another client."""
        link = self.subject.connect()
        self._links.append(link)
        return CheckedClient(link, self._impure)

    def connect_same_process(self, other: CheckedClient) -> CheckedClient:
        """Connect another client in the process of `other`; targets with a transport only."""
        subject: Any = self.subject
        link = subject.connect_same_process(other.link)
        self._links.append(link)
        return CheckedClient(link, self._impure)

    def other_owner(self) -> CheckedClient:
        """Connect a client of another owner. Raises CheckSkipped if there are no other owners."""
        link = self.subject.other_owner()
        if link is None:
            raise targets.CheckSkipped("all clients act for one owner here")
        self._links.append(link)
        return CheckedClient(link, self._impure)

    def listener(self, client: CheckedClient | None = None) -> EventListener:
        """Give a client an event queue; a new client by default. The queue ends with the check."""
        client = self.connect() if client is None else client
        built = EventListener(client, client.link.sink(), self.wait_s)
        self._listeners.append(built)
        return built

    @property
    def impure(self) -> dict[str, str]:
        """Values that were not plain data so far, or were converted in transport, by method."""
        for link in self._links:
            self._impure.update(link.impure())
        return self._impure

    @property
    def reservation(self) -> int | None:
        """Reservation that all checks share; None if none was granted."""
        if not self._reservation_requested:
            self._reservation_requested = True
            with suppress(Exception):
                decision = self.q.reserve(request={"num_shots": SHOTS})
                self._shared_reservation = int(decision["reservation_id"])
        return self._shared_reservation

    def reserve(self, **request: Any) -> int:
        """Make a reservation for the check alone."""
        decision = self.q.reserve(request={"num_shots": SHOTS, **request})
        number = decision.get("reservation_id")
        expect(type(number) is int, f"reserve answered {short_repr(decision)}")
        self._reserved.append(number)
        return int(number)

    @property
    def under(self) -> Plain:
        """Keyword arguments with the shared reservation; none in revision 1."""
        if self.revision == 1 or self.reservation is None:
            return {}
        return {"reservation_id": self.reservation}

    def info(self, qasm: str = circuits.BELL, **more: Any) -> Plain:
        """`info` of a circuit in the form of a host's backend."""
        width = max(1, sum(_sizes(qasm)))
        return {
            "qasm": qasm, "num_qubits": width, "num_shots": SHOTS, "compiler": "staq", **more,
        }  # fmt: skip

    def run(self, qasm: str = circuits.BELL, **more: Any) -> Plain:
        """Run a circuit, wait for it and return its record."""
        info = self.info(qasm, **more)
        if self.revision == 1:
            record: Plain = self.q.sync_run(info)
            return record
        answer = self.q.sync_run(info, **self.under)
        expect(isinstance(answer, dict) and isinstance(answer.get("result"), dict),
               f"sync_run answered {short_repr(answer)}: no record under 'result'")  # fmt: skip
        result: Plain = answer["result"]
        return result

    def counts(self, qasm: str, **more: Any) -> dict[str, int]:
        """Counts of a circuit's record, in either revision."""
        return counts_of(self.run(qasm, **more))

    def submit(
        self,
        qasm: str = circuits.BELL,
        *,
        under: Plain | None = None,
        by: CheckedClient | None = None,
        **more: Any,
    ) -> str:
        """Submit a circuit and return its cid. `by`: the client; None: the first one."""
        return str(self.accept(self.info(qasm, **more), under=under, by=by)[0])

    def accept(
        self, info: Plain, *, under: Plain | None = None, by: CheckedClient | None = None
    ) -> tuple[str, Plain]:
        """Return cid and answer of `async_run`."""
        named_ones: Plain = {}
        client = self.q if by is None else by
        if self.revision == 1:
            cid: Any = client.async_run(info)
            answer: Any = {"cid": cid}
        else:
            named_ones = self.under if under is None else under
            answer = client.async_run(info, **named_ones)
            cid = answer.get("cid") if isinstance(answer, dict) else None
        expect(isinstance(cid, str) and cid, f"async_run answered {short_repr(answer)}: no cid")
        self._cids.append((str(cid), named_ones, client))
        return str(cid), answer

    def completion(
        self, cid: str | None = None, *, by: CheckedClient | None = None, reservation_id: int = 0
    ) -> Plain:
        """Poll for a completion as a host does until it is ready."""
        what = f"completion of {cid or 'anything'}"
        return self.until(lambda: self.poll(cid, by=by, reservation_id=reservation_id), what)

    def poll(
        self, cid: str | None = None, *, by: CheckedClient | None = None, reservation_id: int = 0
    ) -> Plain | None:
        """Return the completion, or None if it is not ready."""
        client = self.q if by is None else by
        if self.revision == 1:
            try:
                result: Plain = client.read_cq(cid)
            except Exception as error:
                if named(error) != "DEFwInProgress":
                    raise
                return None
            return result
        under = {"reservation_id": reservation_id} if reservation_id else self.under
        answer: Plain = client.read_cq(cid, **under)
        if answer.get("outcome") in ("INVALID_RESERVATION", "NO_LONGER_RETAINED"):
            raise CheckFailed(f"read_cq of a task under way answered {short_repr(answer)}")
        return answer if answer.get("completion_ready") else None

    def status(self, cid: str) -> Plain:
        result: Plain = self.q.task_status(cid, **self.under)
        return result

    def await_state(self, cid: str, state: str) -> None:
        """Wait until a circuit is in this state."""
        self.until(lambda: self.status(cid)["lifecycle_state"] == state, state)

    def completed(self) -> Plain:
        """Run a circuit to its end and return the envelope of `async_run`."""
        envelope: Plain = self.q.async_run(self.info(), **self.under)
        self.await_state(envelope["cid"], "completed")
        return envelope

    def until(
        self, ask: Callable[[], Answer | None], what: str, wait_s: float | None = None
    ) -> Answer:
        """Poll until the answer is true and return it. Raises CheckFailed after `wait_s`."""
        wait_s = self.wait_s if wait_s is None else wait_s
        deadline = time.monotonic() + wait_s
        while not (result := ask()):
            expect(time.monotonic() < deadline, f"{what}: not within {wait_s:g} s")
            time.sleep(LOOK_S)
        return result

    def expect_refusal(self, what: str, call: Callable[[], Any], *names: str) -> Exception:
        """Return the error of a call that must be refused with one of these classes."""
        expected = names or (REFUSED,)
        try:
            answer = call()
        except (CheckFailed, targets.CheckSkipped):
            raise
        except Exception as error:
            result = named(error)
            if result in expected:
                return error
            message = f"{what} raised {result}: {error}; not {' or '.join(expected)}"
            raise CheckFailed(message) from error
        raise CheckFailed(f"{what} was not refused; it answered {short_repr(answer)}")

    def answers(self, what: str, call: Callable[[], Any]) -> Any:
        """Return an answer or a typed error. Raises CheckFailed for any other error."""
        try:
            return call()
        except Exception as error:
            if named(error) in targets.FAMILY:
                return error
            raise CheckFailed(f"{what} raised {named(error)}: {str(error)[-200:]}") from error

    def exit_reason(self) -> str:
        """ "" while the QPM lives, else the reason of its end."""
        return "" if self._subject is None else self._subject.exit_reason()

    def clean_up(self) -> None:
        """End the check: cancel its circuits and release its reservations and clients."""
        cids, self._cids = self._cids, []
        for cid, under, client in cids:
            for named_ones in (under, {}) if self.revision == 2 else ({},):
                with suppress(Exception):  # its reservation or its client may have ended
                    if self.revision == 2:
                        self.q.cancel_task(cid, **named_ones)
                    if client.delete_circuit(cid, **named_ones) is None:
                        break
        reserved, self._reserved = self._reserved, []
        for number in reserved:
            with suppress(Exception):
                self.q.cancel(reservation_id=number)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.sink.fail()
        self._impure.update(self.impure)  # before the links are closed
        first = None if self._q is None else self._q.link
        links, self._links = self._links, [link for link in self._links if link is first]
        for link in links:
            if link is not first:
                with suppress(Exception):
                    link.die()


def _sizes(qasm: str) -> list[int]:
    lines = [line for line in qasm.splitlines() if line.startswith("qreg ")]
    return [int(line.split("[")[1].split("]")[0]) for line in lines]
