"""The public face of an environment: submit, wait, look, cancel.

Thread-safe; opens a connection of its own in a forked child; works inside a running event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex, Unpack

from simenv.client.circuits.formats.stim_circuit import is_stim
from simenv.client.connection import address
from simenv.client.connection.liveness import LOST_S
from simenv.client.connection.task_handle import Submission
from simenv.client.environment import Environment
from simenv.client.results import notebook
from simenv.client.results.result import Result
from simenv.client.submission.arguments import checked_whole
from simenv.client.submission.explain import explain
from simenv.client.submission.fresh import renewable
from simenv.client.submission.options import (
    ReservationLike,
    Seed,
    Seeds,
    Shots,
    SubmitOptions,
    with_options_of,
)
from simenv.client.submission.parents import Parents
from simenv.client.submission.prepare import prepare_many, prepare_one
from simenv.client.submission.send import InflightWindow, post, send
from simenv.client.tasks.completions import CompletionIterator, checked_cursor
from simenv.client.tasks.task import Task, number_of, row_of
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model import TaskInfo
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import Explanation

if TYPE_CHECKING:
    from simenv.client.qpm.provider import QPM
    from simenv.client.qpm.runtime.completion_queues import CompletionRetention

MAX_SEQ = 2**63 - 1  # of a completion: SQLite's integers


class Client(Environment):
    """An environment. Made by `simenv.connect` and `simenv.local`; use it with `with`."""

    def __init__(
        self, where: address.Address, timeout_s: float = LOST_S, *, as_client: bool = False
    ) -> None:
        super().__init__(where, timeout_s, as_client=as_client)
        self._posted = InflightWindow()
        self._read_up_to = max(0, self._session.channel.newest_completion)  # the unnamed cursor
        self._qpm: QPM | None = None

    # --- submitting ---------------------------------------------------------------------------

    def submit(
        self,
        circuit: Any,
        *,
        shots: SupportsIndex | float | None = 1024,
        seed: Seed | None = None,
        outputs: Sequence[str] | str = ("counts",),
        observables: Any = None,
        parameter_values: Any = None,
        binding_index: SupportsIndex = 0,
        engine: str = "auto",
        precision: str = "double",
        pool: str | None = None,
        priority: SupportsIndex = 0,
        queue_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        options: Mapping[str, float] | None = None,
        ranks: SupportsIndex | None = None,
        reservation: ReservationLike | SupportsIndex | None = None,
        prefer: Sequence[str] | str | None = None,
        device: str | None = None,
        noise: Any = "on",
        compile: str = "auto",  # noqa: A002 - the public name
        qubit_mapping: Sequence[SupportsIndex] | None = None,
        decoder: str | None = None,
        after: Parents = None,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """Submit one task; it is durably accepted when this returns.

        `circuit`: a QuantumCircuit, OpenQASM 2 or 3 text, or the path of a file (a `str` is text if
        it holds a newline or `;`). `shots=None`: exact. `seed=None`: one is drawn, and the result
        names it. `outputs`: of counts, memory (the bits of each shot), probabilities, statevector,
        expectation, gradient (exact, by the free parameters); `observables` ask for expectation by
        themselves. `parameter_values`: one set; `binding_index`: its index in a sweep, which with
        the seed of a result gives the counts of that result again. `priority`: higher goes first.
        `queue_timeout_s`, `run_timeout_s`: seconds after which a waiting or running task ends as
        EXPIRED. `options`: the engine's own, such as `{"bond": 64}`. `ranks`: of the worker that
        runs it, a power of two; None: as many as its memory needs. `reservation`: the result of
        `reserve`, or its id; without a `pool` the task goes to the reserved pool. `prefer`: pools,
        or kinds of devices (hardware, emulator, simulator); the first that can take the task now
        gets it, and the result's `engine_reason` names it. `device`: the name of an emulated device
        on which it runs with noise; `noise`: "on", "off", a recipe ("aer"), factors of components
        ({"gate.depolarizing": 0.5}), or an exported noise model; `compile`: "auto" compiles what
        does not fit the device, "fresh" also where its calibration has changed, "always" all,
        "never" nothing; `qubit_mapping`: its qubits. `after`: tasks, or their ids, 64 at most; it
        runs when all are DONE, and fails with the reason `dependency` when one ends otherwise.
        `idempotency_key`: a repeat with the same key and content returns the same task, other
        content raises KeyConflictError. Of a stim.Circuit detectors and observables are sampled,
        and decoded by `decoder` ("pymatching", or None); its result is a `DetectionResult`.

        Raises ProgramError, OptionError, InfeasibleError, LimitExceededError, NotFoundError,
        NotReservedError, QueueFullError, KeyConflictError, ServiceLostError.
        """
        begun = perf_counter()
        values: SubmitOptions = {
            "shots": shots,
            "seed": seed,
            "outputs": outputs,
            "observables": observables,
            "parameter_values": parameter_values,
            "binding_index": binding_index,
            "engine": engine,
            "precision": precision,
            "pool": pool,
            "priority": priority,
            "queue_timeout_s": queue_timeout_s,
            "run_timeout_s": run_timeout_s,
            "options": options,
            "ranks": ranks,
            "reservation": reservation,
            "prefer": prefer,
            "device": device,
            "noise": noise,
            "compile": compile,
            "qubit_mapping": qubit_mapping,
            "decoder": decoder,
            "after": after,
            "name": name,
            "idempotency_key": idempotency_key,
        }
        if is_stim(circuit):
            from simenv.client.calls.detection import submit_detection

            return submit_detection(self._session, circuit, values)
        prepared = prepare_one(circuit, values, self._devices)
        self._session.timings.packed_s += perf_counter() - begun
        task = send(self._session, prepared, idempotency_key)[0]
        used = prepared.specs[0].seed
        return renewable(self._session, task, circuit, values, used, self._devices)

    def submit_many(
        self,
        work: Any,
        *,
        shots: Shots | Sequence[Shots] = 1024,
        seed: Seeds = None,
        outputs: Sequence[str] | str = ("counts",),
        observables: Any = None,
        engine: str = "auto",
        precision: str = "double",
        pool: str | None = None,
        priority: SupportsIndex = 0,
        queue_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        options: Mapping[str, float] | None = None,
        ranks: SupportsIndex | None = None,
        reservation: ReservationLike | SupportsIndex | None = None,
        prefer: Sequence[str] | str | None = None,
        device: str | None = None,
        noise: Any = "on",
        compile: str = "auto",  # noqa: A002 - the public name
        qubit_mapping: Sequence[SupportsIndex] | None = None,
        after: Parents = None,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[Task]:
        """Submit many tasks, in order, accepted or refused as a whole; options as in `submit`.

        `work`: several circuits; or a sweep, (circuit, parameter values), one task for each set of
        values: an array (K, P), columns in the order of `circuit.parameters`, or a mapping from
        parameter to K values; or a list of sweeps, `shots` then one number or one each. A sweep is
        sent as few tasks of up to 4,096 sets of values (bindings), each accepted, run and ended as
        one; each Task returned, such as `t-8k2f.17`, is one binding.

        `seed`: a list gives each task, or each of several sweeps, its own. One seed: item k gets
        BLAKE2b(seed, k), cut to 53 bits; the bindings of a sweep share it, and their number is a
        part of the random key. Item k has the idempotency key (idempotency_key, k).

        Raises BatchRefusedError with one error for each bad item; a refusal that is about the call
        as a whole (QueueFullError, KeyConflictError) is raised as it is.
        """
        begun = perf_counter()
        prepared = prepare_many(
            work,
            {
                "shots": shots,  # type: ignore[typeddict-item]
                "seed": seed,
                "outputs": outputs,
                "observables": observables,
                "engine": engine,
                "precision": precision,
                "pool": pool,
                "priority": priority,
                "queue_timeout_s": queue_timeout_s,
                "run_timeout_s": run_timeout_s,
                "options": options,
                "ranks": ranks,
                "reservation": reservation,
                "prefer": prefer,
                "device": device,
                "noise": noise,
                "compile": compile,
                "qubit_mapping": qubit_mapping,
                "after": after,
                "name": name,
                "idempotency_key": idempotency_key,
            },
            self._devices,
        )
        self._session.timings.packed_s += perf_counter() - begun
        return send(self._session, prepared, idempotency_key)

    @with_options_of(submit)
    def post(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task:
        """Submit without waiting for the acceptance: for many circuits one by one.

        What the client finds wrong is raised here. What the service refuses is raised by the first
        use of the task that needs its acceptance: its id, its state, its result.
        """
        begun = perf_counter()
        prepared = prepare_one(circuit, options, self._devices)
        self._session.timings.packed_s += perf_counter() - begun
        return post(self._session, prepared, options.get("idempotency_key"), self._posted)

    @with_options_of(submit)
    def run(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Result:
        """The result of `submit(circuit, ...)`."""
        return self.submit(circuit, **options).result()

    @with_options_of(submit)
    def explain(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Explanation:
        """Ask which engine `submit(circuit, ...)` would choose, and why no other; nothing is run.

        Its `engine` is "" where none can run it here. Raises ProgramError, OptionError.
        """
        return explain(self._session, circuit, options, self._devices)

    # --- tasks --------------------------------------------------------------------------------

    def task(self, task: str | int) -> Task:
        """A task submitted before, here or by another process; NotFoundError if there is none (any
        longer)."""
        number = number_of(task)
        infos = self._session.task_infos([number])
        if not infos:
            handle = self._session.handle_for(number, Submission())
            self._session.wait_ended(handle, None)  # it is answered at once
            raise handle.error() or NotFoundError(f"no task {task} here")
        return Task(self._session.handle_for(number, Submission(infos[0].name)), row_of(task))

    def tasks(self, tasks: Iterable[Task | str | int]) -> list[TaskInfo]:
        """What the service knows of these; unknown ones are left out."""
        return self._session.task_infos([number_of(task) for task in tasks])

    def cancel(self, tasks: Iterable[Task | str | int]) -> list[str]:
        """One word for each: "cancelled", "cancelling" (it was asked to stop), "final" (it had
        ended), "unknown"."""
        return self._session.cancel([number_of(task) for task in tasks])

    def queue(self, done: bool = False, limit: int = 100) -> tuple[int, list[TaskInfo]]:
        """How many there are, and the first of them: running, then waiting in their order;
        `done`: ended ones instead, newest first."""
        answer = self._session.request(m.Queue, partial(m.GetQueue, done=done, limit=limit))
        return answer.total, answer.tasks

    def completions(
        self, since: int | None = None, cursor: str | None = None, follow: bool = False
    ) -> CompletionIterator:
        """All completions of the environment numbered above `since`, in order; also `async for`.

        `since=None`: above the position of the cursor. A named `cursor` is stored by the service
        under the owner's name: it survives this process, starts at 0, and whoever names it shares
        it. Without a name the cursor belongs to this client alone, is not stored, and starts at the
        newest completion at the time of its connection, so that programs of one owner do not
        disturb one another. The iteration ends when all is read and no task waits or runs;
        `follow`: never. It yields failed, cancelled and expired tasks too: see `Completion.error`.
        Acknowledge with `ack` when a result is safe. Raises OptionError.
        """
        if since is None and cursor is None:
            since = self._read_up_to
        elif since is None:
            since = self._session.request(
                m.Acked, partial(m.GetCursor, cursor=checked_cursor(cursor))
            ).seq
        return CompletionIterator(self._session, since, follow)

    def ack(self, seq: int, cursor: str | None = None) -> int:
        """Move a cursor: everything up to `seq` is safely read. Return its new position.

        A named cursor is stored before this returns. Without a name it is this client's own; see
        `completions`. Raises OptionError.
        """
        if cursor is not None:
            return self._session.request(
                m.Acked, partial(m.Ack, cursor=checked_cursor(cursor), seq=seq)
            ).seq
        self._read_up_to = checked_whole("seq", seq, 0, MAX_SEQ)
        return self._read_up_to

    @property
    def qpm(self) -> QPM:
        """This environment as a QPM, for hosts that drive hardware through one."""
        from simenv.client.qpm.provider import QPM

        with self._session.channel.lock:
            if self._qpm is None:
                self._qpm = QPM(self, self._session)
            return self._qpm

    def qpm_with(
        self,
        *,
        pool: str | None = None,
        reservations: str = "optional",
        token_file: str | Path | None = None,
        statevector_qubits: int = 20,
        retention: CompletionRetention | None = None,
    ) -> QPM:
        """A QPM of its own, with queues of its own.

        `pool`: it stands for this pool alone, and what it is given runs there; None: for the
        environment.
        `reservations`: "optional", or "required": then every circuit must name one. `token_file`:
        one that is nobody else's to read; every call of revision 2 must carry what it holds.
        `statevector_qubits`: wider statevectors are refused. `retention`: of unread completions;
        None: an hour, and what the contract has. Raises OptionError, ConfigError, NotFoundError.
        """
        from simenv.client.qpm.provider import configured

        return configured(
            self,
            self._session,
            self.devices,
            pool,
            reservations,
            token_file,
            statevector_qubits,
            retention,
        )

    def close(self) -> None:
        """Let go of the connection; tasks go on. Idempotent."""
        self._renewer.stop()
        self._session.close()
        self._renewer.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._session.channel.closed:
            return f"<simenv {self.name} | closed>"
        try:
            info = self._session.request(m.Status, m.GetStatus, 0.5).info
        except SimenvError:
            return f"<simenv {self.name} | no answer>"
        return notebook.client_text(info)


def connect(
    name: str | None = None,
    *,
    service: str | Path | None = None,
    timeout_s: float = LOST_S,
    role: str | None = None,
) -> Client:
    """A client of an environment that is up.

    `service`: its connection file; else `name`; else the file SIMENV_SERVICE names; else `default`.
    `role`: "client" gives up the rights of an admin, whose requests then raise NotAllowedError;
    None: the role of the key. Raises NoServiceError, VersionMismatchError, OptionError.
    """
    if role not in (None, "client"):
        raise OptionError(f"role={role!r:.80}", hint="'client', or None for the role of the key")
    where = address.find(name, Path(service) if service is not None else None)
    return Client(where, timeout_s, as_client=role is not None)
