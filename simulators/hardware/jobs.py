"""Jobs of a machine: circuits are submitted, and counts or the outcomes of the shots are read and
checked strictly.

A machine is any Qiskit BackendV2. Invariant: results are exactly the requested shots, over exactly
the circuit's classical bits; any other behaviour of a machine is one of the errors MachineRefused,
MachineFailed, BadAnswer. During the wait for a job the control flag is read; a call of the backend
that never returns can only be ended with its process.
"""

from __future__ import annotations

import operator
import string
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from qiskit import QuantumCircuit

from simulators.engine import JOBS, RunControl
from simulators.errors import BadAnswer, MachineFailed, MachineRefused, Stopped
from simulators.execution.philox import block_seed

MOST_CIRCUITS = 300  # circuits of one job if the machine sets no bound
MOST_SHOTS = 2**31 - 1
_SEED_BITS = 31  # size that every generator accepts
_FIRST_NAP_S, _LONGEST_NAP_S = 0.5e-3, 0.1
_OVER = frozenset({"DONE", "ERROR", "FAILED", "CANCELLED", "COMPLETED"})
_LOST = frozenset({"ERROR", "FAILED", "CANCELLED"})
_MESSAGE_CHARS = 500
Circuits = Sequence[QuantumCircuit]
Key = tuple[int, int]  # seed, number of the first circuit's binding
Part = TypeVar("Part")
Reader = Callable[[Any, int, int, int], Part]  # (result, circuit index, clbits, shots) -> part
_HEX = frozenset(string.hexdigits)  # int() takes signs and underscores too


class Machine:
    """One backend; used by one thread at a time."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.name = str(getattr(backend, "name", "") or type(backend).__name__)
        self.max_shots = max_shots(backend)
        self._max_circuits = min(MOST_CIRCUITS, getattr(backend, "max_circuits", 0) or MOST_SHOTS)
        self._seeded = "seed_simulator" in getattr(backend, "options", {})
        self._job: Any = None  # current job
        self._leaving = False
        self._turn = threading.Lock()  # between `abandon` and a new submission
        self._asked = threading.Event()  # set while no job is being submitted
        self._asked.set()

    def counts(
        self, circuits: Circuits, shots: int, key: Key, control: RunControl
    ) -> list[Counter[int]]:
        """Counts of each circuit, clbit 0 in bit 0. If there are more shots, or circuits, than one
        job takes, several jobs are run and added. `key`: for machines that are simulators."""
        results = [Counter[int]() for _ in circuits]
        for place, part in self._parts_of(circuits, shots, key, control, self._counted):
            results[place].update(part)
        return results

    def memory(
        self, circuits: Circuits, shots: int, key: Key, control: RunControl
    ) -> list[list[int]]:
        """Outcomes of the shots of each circuit, in order; otherwise as `counts`. Raises BadAnswer
        if the machine does not return single shots."""
        results: list[list[int]] = [[] for _ in circuits]
        for place, part in self._parts_of(circuits, shots, key, control, self._recorded):
            results[place] += part
        return results

    def _parts_of(
        self, circuits: Circuits, shots: int, key: Key, control: RunControl, read: Reader[Part]
    ) -> Iterator[tuple[int, Part]]:
        """Results of each job for each circuit, with the circuit's index."""
        control.expect(self.jobs(len(circuits), shots), JOBS)
        for first in range(0, len(circuits), self._max_circuits):
            some = circuits[first : first + self._max_circuits]
            for number, begin in enumerate(range(0, shots, self.max_shots)):
                wanted = min(self.max_shots, shots - begin)
                seed = block_seed(key[0], key[1] + first, number) >> (62 - _SEED_BITS)
                yield from enumerate(self._once(some, wanted, seed, control, read), first)
                control.advance(JOBS)

    def jobs(self, circuits: int, shots: int) -> int:
        """Number of jobs that the request is divided into."""
        return -(-circuits // self._max_circuits) * -(-shots // self.max_shots)

    def _once(
        self, circuits: Circuits, shots: int, seed: int, control: RunControl, read: Reader[Part]
    ) -> list[Part]:
        control.check()
        options: dict[str, Any] = {"seed_simulator": seed} if self._seeded else {}
        if read == self._recorded:
            options["memory"] = True
        asked = list(circuits) if len(circuits) > 1 else circuits[0]
        with self._turn:
            if self._leaving:
                raise Stopped("this process ends", hint="submit it again")
            self._asked.clear()
        try:
            job = self._job = self.backend.run(asked, shots=shots, **options)
        except Exception as error:  # a machine may raise anything
            text = f"machine {self.name!r} did not take the job: {_error_text(error)}"
            raise MachineRefused(text, hint="message of the provider; nothing was run") from error
        finally:
            self._asked.set()
        try:
            self._await(job, control)
            result = self._call(job, "result", "has no result of")
        finally:
            self._job = None
        return [
            read(result, place, circuit.num_clbits, shots) for place, circuit in enumerate(circuits)
        ]

    def abandon(self) -> None:
        """Cancel the current job, or one that is being submitted, because this process ends; else
        it would run without a reader. Then call `close` of the backend, if it has that. Any thread
        may call this; it takes as long as the provider does."""
        with self._turn:
            self._leaving = True
        self._asked.wait()
        job = self._job
        if job is not None:
            with suppress(Exception):  # as below; no caller is left for the error
                job.cancel()
        close = getattr(self.backend, "close", None)
        if callable(close):
            with suppress(Exception):  # as above
                close()

    def _await(self, job: Any, control: RunControl) -> None:
        """Wait until the job is over; cancel it if the run is stopped."""
        nap_s = _FIRST_NAP_S
        while True:
            status = self._call(job, "status", "does not know the state of")
            word = str(getattr(status, "name", status)).upper()
            if word in _OVER:
                break
            if control.flag[0]:
                self._cancel(job)
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, _LONGEST_NAP_S)
        if word in _LOST:
            control.check()
            text = f"machine {self.name!r} ended {_job(job)} with {word}{_why(job)}"
            hint = "message of the provider; submit it again, or ask for a simulator"
            raise MachineFailed(text, hint=hint)

    def _cancel(self, job: Any) -> None:
        try:
            job.cancel()
        except Exception as error:  # as above; the run is stopped anyway
            raise Stopped(
                f"stopped; machine {self.name!r} did not cancel {_job(job)}: {_error_text(error)}",
                hint="it may still run there",
            ) from error
        hint = "whoever stopped it can submit it again"
        raise Stopped(f"stopped; {_job(job)} was cancelled on machine {self.name!r}", hint=hint)

    def _call(self, job: Any, what: str, action: str) -> Any:
        try:
            return getattr(job, what)()
        except Exception as error:  # as above
            raise self.failed(f"{action} {_job(job)}", error) from error

    def failed(self, action: str, error: Exception) -> MachineFailed:
        """Convert a provider's error."""
        hint = "message of the provider; submit it again, or ask for a simulator"
        return MachineFailed(f"machine {self.name!r} {action}: {_error_text(error)}", hint=hint)

    def _answer(self, result: Any, what: str, label: str, place: int) -> Any:
        """Return value of a method of a result for one circuit."""
        try:
            failed = getattr(result, "success", True) is False
            status = str(getattr(result, "status", "")) if failed else ""
        except Exception as error:  # as above
            text = f"a result that does not say its state: {_error_text(error)}"
            raise self._bad(text) from error
        if failed:
            text = f"machine {self.name!r} says that the run failed: {status[:_MESSAGE_CHARS]}"
            hint = "message of the provider; submit it again, or ask for a simulator"
            raise MachineFailed(text, hint=hint)
        if not callable(getattr(result, "get_counts", None)):
            raise self._bad(f"a {type(result).__name__} instead of a Result")
        try:
            return getattr(result, what)(place)
        except Exception as error:  # as above
            bad = self._bad(f"no {label} of circuit {place}: {_error_text(error)}")
            if what == "get_memory":
                bad.hint = "counts do without the order of the shots: ask for outputs='counts'"
            raise bad from error

    def _counted(self, result: Any, place: int, num_clbits: int, shots: int) -> Counter[int]:
        """Checked counts of one circuit."""
        entry = self._answer(result, "get_counts", "counts", place)
        if not isinstance(entry, Mapping):
            raise self._bad(f"a {type(entry).__name__} instead of counts")
        counts: Counter[int] = Counter()
        for outcome, count in entry.items():
            counts[self._outcome(outcome, num_clbits)] += self._number(outcome, count)
        self._check_shots(counts.total(), shots)
        return counts

    def _recorded(self, result: Any, place: int, num_clbits: int, shots: int) -> list[int]:
        """Checked outcomes of the shots of one circuit, in order."""
        entry = self._answer(result, "get_memory", "memory of its shots", place)
        if not isinstance(entry, Sequence) or isinstance(entry, str):
            raise self._bad(f"a {type(entry).__name__} instead of the memory of its shots")
        self._check_shots(len(entry), shots)
        return [self._outcome(outcome, num_clbits) for outcome in entry]

    def _check_shots(self, returned: int, shots: int) -> None:
        if returned != shots:
            raise self._bad(f"{returned} shots, and {shots} were asked for")

    def _outcome(self, outcome: object, num_clbits: int) -> int:
        """Parse an outcome in Qiskit's form: bits with spaces between registers, or hexadecimal."""
        word = outcome.replace(" ", "") if isinstance(outcome, str) else ""
        value = -1
        if word.startswith("0x"):
            value = int(word, 16) if word[2:] and _HEX.issuperset(word[2:]) else -1
        elif word and len(word) == num_clbits and set(word) <= {"0", "1"}:
            value = int(word, 2)
        if value < 0 or value >> num_clbits:
            raise self._bad(f"outcome {outcome!r:.80}; the circuit has {num_clbits} clbits")
        return value

    def _number(self, outcome: object, count: object) -> int:
        try:
            number = operator.index(count)  # type: ignore[arg-type]
        except TypeError:
            number = -1
        if number < 0:
            raise self._bad(f"{count!r:.80} times outcome {outcome!r:.80}")
        return number

    def _bad(self, problem: str) -> BadAnswer:
        hint = "the fault is the machine's or its provider's; nothing of this run is kept"
        return BadAnswer(f"machine {self.name!r} returned {problem}", hint=hint)


def max_shots(backend: Any) -> int:
    """Largest number of shots of one run: from the device or its options, else MOST_SHOTS."""
    settings = getattr(backend, "max_shots", None)
    if not isinstance(settings, int):
        bounds = getattr(getattr(backend, "options", None), "validator", {}).get("shots")
        settings = bounds[1] if isinstance(bounds, tuple) and len(bounds) == 2 else None
    return settings if isinstance(settings, int) and 0 < settings < MOST_SHOTS else MOST_SHOTS


def _job(job: object) -> str:
    """Name of a job at the provider."""
    try:
        return f"job {job.job_id()}"  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001  # it has no id, or does not return it
        return f"its {type(job).__name__}"


def _why(job: Any) -> str:
    try:
        said = job.error_message()
    except Exception:  # noqa: BLE001  # most backends lack it
        return ""
    return f": {said}"[:_MESSAGE_CHARS] if said else ""


def _error_text(error: Exception) -> str:
    message = str(getattr(error, "message", "") or error)
    return f"{type(error).__name__}: {message}"[:_MESSAGE_CHARS]


# Adapter that gives a backend with a SamplerV2 only (as IBM's) a method `run`.


class SamplerAdapter:
    """Backend over a sampler. `backend`: describes the machine; `sampler`: runs the circuits."""

    def __init__(self, backend: Any, sampler: Any) -> None:
        self._backend = backend
        self._sampler = sampler
        self.options: dict[str, Any] = {}  # the backend's own options belong to its unused `run`

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, circuits: Any, shots: int, memory: bool = False) -> SampledJob:  # noqa: ARG002
        """Submit one job for one circuit or several; a sampler always keeps the memory of the
        shots."""
        asked = list(circuits) if isinstance(circuits, Sequence) else [circuits]
        return SampledJob(self._sampler.run(asked, shots=shots))


class SampledJob:
    """Job of a sampler, with a result in the form of a backend's."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    def result(self) -> SampledCounts:
        return SampledCounts(self._job.result())


class SampledCounts:
    """Counts, and memory, by circuit; the first register's first bit is the last character."""

    def __init__(self, result: Any) -> None:
        self._found = result

    def get_counts(self, place: int) -> dict[str, int]:
        """Counts of one circuit, over the bits of all its registers."""
        counts: dict[str, int] = self._found[place].join_data().get_counts()
        return counts

    def get_memory(self, place: int) -> list[str]:
        """Outcomes of the shots of one circuit, in their order."""
        outcomes: list[str] = self._found[place].join_data().get_bitstrings()
        return outcomes
