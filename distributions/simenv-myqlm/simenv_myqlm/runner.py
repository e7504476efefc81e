"""Jobs as tasks of an environment: one request for each program, one for all of its angles.

Invariant: a job runs once, however often requests are repeated: each submission has an idempotency
key and a seed that are drawn once.
"""

from __future__ import annotations

import json
import math
import random
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

from simenv_myqlm import pulses
from simenv_myqlm.errors import ConfigError, GatewayError, NoGatewayError
from simenv_myqlm.gateway import GatewayConnection
from simenv_myqlm.programs import (
    Outcome,
    Program,
    Template,
    check_breaks,
    measured_qubits,
    outcome_reader,
    pauli_sum,
    program_of,
    swept,
)
from simenv_myqlm.records import Job, PulseJob, Result, Sample

MAX_REQUESTS = 4  # at once; the gateway works at four calls of a token
MAX_BINDINGS = 4_096  # of one sweep
PAGE = 100  # results of one answer
WAIT_S = 60.0  # of one request for a result
TIMEOUT_S = 3_600.0  # for the result of a job
_PAUSE_S = 0.05  # between two requests for a result that has not come
SEED_BITS = 53  # whole numbers that every reader of JSON keeps
OPTIONS = frozenset((
    "device", "pool", "prefer", "noise", "compile", "qubit_mapping", "engine", "precision",
    "options", "ranks", "priority", "queue_timeout_s", "run_timeout_s", "reservation", "account",
    "qos", "name", "partition",
))  # fmt: skip
_META = ("task", "engine", "device", "seed", "shots", "snapshot", "node", "version", "truncation")


class Runner:
    """Runs jobs over one connection.

    `seed`: of the first program of each call; None: a new one each time. `amplitudes`: exact
    samples of all qubits carry amplitudes; without noise alone. `timeout_s`: for each result.
    `options`: of the gateway's tasks, by their names there, such as device, pool or noise. Raises
    ConfigError."""

    def __init__(
        self, connection: GatewayConnection, *, seed: int | None = None, amplitudes: bool = False,
        timeout_s: float = TIMEOUT_S, **options: Any,
    ) -> None:  # fmt: skip
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise ConfigError(f"option {unknown[0]!r}", f"one of: {', '.join(sorted(OPTIONS))}")
        self.connection, self._seed, self._amplitudes = connection, seed, amplitudes
        self._timeout_s = timeout_s
        self._options = {name: value for name, value in options.items() if value is not None}

    def run(self, jobs: Sequence[Job | PulseJob]) -> list[Result]:
        """Run jobs and return their results in order: those whose programs differ in angles alone
        as one sweep, the others at the same time. Raises SimenvQPUError; `index` of GatewayError
        is the first of the jobs that it is about."""
        work: list[_Work] = []
        groups: dict[Any, list[tuple[int, Job, Program]]] = {}
        for index, job in enumerate(jobs):
            if isinstance(job, PulseJob):
                work.append(((index,), partial(self._run_pulses, job)))
                continue
            program = program_of(job, measures=not self._is_of_amplitudes(job))
            key = program.template, job.shots, job.observable, job.aggregate
            groups.setdefault(key, []).append((index, job, program))
        for group in groups.values():
            for start in range(0, len(group), MAX_BINDINGS):
                indices, own, programs = zip(*group[start : start + MAX_BINDINGS], strict=True)
                work.append((indices, partial(self._run_circuits, own, programs)))
        work.sort(key=lambda each: each[0][0])
        seeds = map(self._seed_of, range(len(work)))
        if len(work) == 1:
            found = [_ended(work[0], next(seeds))]
        else:
            with ThreadPoolExecutor(MAX_REQUESTS) as threads:
                found = list(threads.map(_ended, work, seeds))
        results = dict(item for each in found for item in each)
        return [results[index] for index in range(len(jobs))]

    def _seed_of(self, part: int) -> int:
        if self._seed is None:
            return secrets.randbits(SEED_BITS)
        return self._seed if part == 0 else random.Random(f"{self._seed}/{part}").getrandbits(53)

    def _asked(self, job: Job) -> dict[str, Any]:
        """Return the members of a request that say what a job asks for."""
        asked: dict[str, Any] = {"shots": job.shots or None}
        if job.observable is not None:
            terms, _ = pauli_sum(job.observable, job.circuit.num_qubits)
            # A sum of nothing is refused there; what a constant costs is one term.
            asked["observables"] = [terms or {"I" * job.circuit.num_qubits: 0.0}]
            asked["outputs"] = ["expectation"]
        elif not job.shots:
            asked["outputs"] = ["statevector" if self._is_of_amplitudes(job) else "probabilities"]
        else:
            asked["outputs"] = ["counts" if job.aggregate else "memory"]
        return asked

    def _is_of_amplitudes(self, job: Job) -> bool:
        if not self._amplitudes or job.shots or job.observable is not None:
            return False
        return list(measured_qubits(job)) == list(range(job.circuit.num_qubits))

    def _run_pulses(self, job: PulseJob, seed: int) -> list[Result]:
        asked = pulses.asked(job)
        options = {**self._options.get("options", {}), **asked.pop("options", {})}
        body = {**self._options, **asked, "seed": seed} | ({"options": options} if options else {})
        answer = self._run_task(body, uuid.uuid4().hex)
        found = answer["pulses"]
        meta = _meta(answer) | {"n_qubits": str(len(found["atoms"]))}  # as pulser-myqlm writes it
        if job.shots:
            meta["n_samples"] = str(job.shots)
        return [Result(tuple(pulses.samples(job, found)), meta_data=meta)]

    def _run_circuits(
        self, jobs: Sequence[Job], programs: Sequence[Program], seed: int
    ) -> list[Result]:
        """Run jobs whose programs differ in angles alone."""
        first, template = jobs[0], programs[0].template
        body, key = {**self._options, **self._asked(first), "seed": seed}, uuid.uuid4().hex
        if len(jobs) == 1:
            answers = iter([self._run_task(body | {"program": programs[0].text()}, key)])
        else:
            text, values = swept(programs)
            answers = self._run_sweep(body | {"program": text, "parameter_values": values}, key)
        if first.observable is not None:
            _, constant = pauli_sum(first.observable, first.circuit.num_qubits)
            return [_mean(first, constant, each) for each in answers]
        read = cache(outcome_reader(template))  # results of a sweep share outcomes
        return [
            Result(tuple(_samples(job, template, read, answer)), meta_data=_meta(answer))
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def _run_task(self, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        status, answer = self.connection.request("POST", f"/tasks?wait={WAIT_S:.0f}", body, key)
        if status != 202:
            return _record(answer)
        (result,) = self._results(str(_record(answer).get("id")), 1)
        return result

    def _run_sweep(self, body: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
        _, answer = self.connection.request("POST", "/sweeps", body, key)
        for task in _record(answer).get("tasks", ()):
            yield from self._results(str(task["id"]), int(task["bindings"]))

    def _results(self, task: str, bindings: int) -> Iterator[dict[str, Any]]:
        """Yield the results of a task, in pages as large as an answer may be."""
        end_s = time.monotonic() + self._timeout_s
        first, limit = 0, PAGE
        while first < bindings:
            wait = min(WAIT_S, max(0.0, end_s - time.monotonic()))
            path = f"/tasks/{task}/result?wait={wait:.3f}&first={first}&limit={limit}"
            try:
                status, answer = self.connection.request("GET", path)
            except GatewayError as error:
                if error.status != 413 or limit == 1:
                    raise
                limit //= 2  # the page was too large
                continue
            if status == 202:
                if time.monotonic() > end_s:
                    hint = f"it goes on; GET /api/v1/tasks/{task}/result, or a larger timeout_s="
                    raise NoGatewayError(
                        f"task {task} has no result after {self._timeout_s} s", hint
                    )
                continue
            found = _record(answer)
            page = found.get("results", [found])
            if not page:
                raise _unknown_form()
            first += len(page)
            yield from page


_Work = tuple[tuple[int, ...], Callable[[int], list[Result]]]  # indices of jobs, and their run


def _ended(work: _Work, seed: int) -> list[tuple[int, Result]]:
    """Run some jobs; return their results by index."""
    indices, run = work
    try:
        return list(zip(indices, run(seed), strict=True))
    except GatewayError as error:
        found = error
        if "Accept:" in error.hint:  # it is for programs that choose the form of an answer
            hint = "fewer measured qubits, shots or terms"
            found = GatewayError(error.message, hint, error.code, error.status)
        found.index = indices[0]
        raise found from error.__cause__
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _unknown_form() from error


def _unknown_form() -> GatewayError:
    text = "an answer of another form than this version of simenv-myqlm knows"
    return GatewayError(text, "does its version go with the gateway's?")


def _record(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise _unknown_form()
    return answer


def _meta(answer: Mapping[str, Any]) -> dict[str, str]:
    meta = {name: str(answer[name]) for name in _META if answer.get(name) is not None}
    if answer.get("warnings"):
        meta["warnings"] = json.dumps(answer["warnings"])
    return meta


def _mean(job: Job, constant: float, answer: Mapping[str, Any]) -> Result:
    error = answer["std_errors"][0] if job.shots else None
    return Result((), constant + float(answer["expectations"][0]), error, _meta(answer))


def _samples(
    job: Job, template: Template, read: Callable[[str], Outcome], answer: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yield the samples of a job in the order of their states, or of its shots."""
    if answer.get("statevector") is not None:
        width = job.circuit.num_qubits
        for index, (real, imag) in enumerate(answer["statevector"]):
            weight = real * real + imag * imag
            if weight > job.amp_threshold**2:
                state = int(f"{index:0{width}b}"[::-1], 2)  # qubit 0 is lowest there, highest here
                yield Sample(state, weight, None, complex(real, imag))
        return
    if answer.get("memory") is not None:
        check_breaks(template, Counter(answer["memory"]))
        for key in answer["memory"]:
            state, before = read(key)
            yield Sample(state, intermediate_measurements=before)
        return
    counts = answer.get("counts")
    weights: dict[str, float] = answer["probabilities"] if counts is None else counts
    if counts is not None:
        check_breaks(template, weights)
    total = sum(weights.values()) if job.shots else 1.0
    least = job.threshold if job.shots else job.amp_threshold**2
    for (state, before), weight in sorted((read(key), weight) for key, weight in weights.items()):
        share = weight / total
        if not job.shots:
            if share > least:
                yield Sample(state, share, None, None, before)
        elif share >= least:
            err = math.sqrt(share * (1 - share) / max(1, job.shots - 1))
            yield Sample(state, share, err, None, before)
