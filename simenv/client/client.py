"""Client of an environment, and the executor of circuits over it.

`Client` submits tasks, waits for them, queries and cancels them. Thread-safe. A forked child opens
a connection of its own. Methods work inside a running event loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from simenv.client import result_display
from simenv.client.circuits.load import is_pulses, is_stim
from simenv.client.completions import CompletionIterator, checked_cursor
from simenv.client.connection import address
from simenv.client.connection.channel import LOST_S
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import Submission
from simenv.client.environment import Environment
from simenv.client.result import Result
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.options import with_options_of
from simenv.client.submission.prepare import prepare_many, prepare_one, prepare_question
from simenv.client.submission.send import FRESH, InflightWindow, post, renewable, send
from simenv.client.tasks.task import Task, TaskExecutor, deadline_of, number_of, numbers_of, row_of
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model import TaskInfo, task_name
from simenv.model.options import BatchOptions, SubmitOptions
from simenv.model.task_rules import checked_integer, checked_timeout
from simenv.wire.messages import client as m
from simenv.wire.messages.explain import Explanation

if TYPE_CHECKING:
    from simenv.client.qpm.completion_queues import CompletionRetention
    from simenv.client.qpm.provider import QPM


def explain(
    session: ServiceSession, circuit: Any, options: SubmitOptions, devices: SubmitDevices
) -> Explanation:
    """Ask which engine would run the circuit. Raises like `submit`, except InfeasibleError."""
    asked, use = prepare_question(circuit, options, devices)
    found = session.request(asked).explanation
    return msgspec.structs.replace(found, **msgspec.structs.asdict(use))


RESTART_S = 30.0  # in which a service that has ended may be started again
MAX_SEQ = 2**63 - 1  # number of a completion: an integer of SQLite


class Client(Environment):
    """The client of one environment, from `simenv.connect` or `simenv.local`; a context manager."""

    def __init__(
        self, endpoint: address.Address, timeout_s: float = LOST_S, *, as_client: bool = False
    ) -> None:
        super().__init__(endpoint, timeout_s, as_client=as_client)
        self._posted = InflightWindow()
        newest = self._session.channel.service.newest_completion
        self._read_up_to = max(0, newest)  # the unnamed cursor
        self._qpm: QPM | None = None

    @with_options_of(SubmitOptions)
    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task:
        """Submit one task. The task is durably accepted when this returns.

        `circuit`: a QuantumCircuit, OpenQASM 2 or 3 text, or the path of a file (a `str` is text if
        it holds a newline or `;`). `shots=None`: exact results. `seed=None`: a random seed, which
        the result names. `outputs`: of counts, memory (the bits of each shot), probabilities,
        statevector, expectation, gradient (exact, by the free parameters); `observables` imply
        expectation. `amplitudes`: bit strings, highest qubit first, whose amplitudes the result
        has; for circuits that measure nothing. `parameter_values`: one binding; `binding_index`:
        its index in a sweep, which with a result's seed gives its counts again. `priority`: higher
        ones start first. `queue_timeout_s`, `run_timeout_s`: seconds after which it ends as
        EXPIRED. `options`: of the engine: `{"bond": 64}`. `ranks`: MPI ranks of the worker, a power
        of two; None: as many as the memory needs. `reservation`: the result of `reserve`, or its
        id; without `pool` the task goes to the reserved pool. `account`: the one that is charged,
        and `qos`: the class of service; None: SIMENV_ACCOUNT and SIMENV_QOS, else the defaults of
        user and account. `trace`: the W3C traceparent that it continues; None: TRACEPARENT, else
        the ambient span of OpenTelemetry. `prefer`: pools, or kinds of devices (hardware, emulator,
        simulator); the first that can take the task gets it, and `engine_reason` names it.
        `device`: the emulated device that runs the circuit, with noise; `noise`: "auto" (that of
        the device, if any), "on", "off", a recipe ("aer"), factors of components
        ({"gate.depolarizing": 0.5}), or an exported noise model; `compile`: "auto" compiles
        circuits that do not fit the device, "fresh" again after a change of calibration, "always"
        all, "never" none; `qubit_mapping`: the device's qubits; `partition`: the module of each
        qubit on a device of several QPUs, "auto": with few Bell pairs. `after`: tasks, or their
        ids, at most 64; the task runs when all are DONE, and fails with the reason `dependency`
        when one ends otherwise. `idempotency_key`: a repeat of the same content returns the same
        task. A stim.Circuit gives a `DetectionResult`;
        `decoder`: "pymatching", "pymatching-correlated" or another one of the workers, or None;
        with `device`, `qubit_mapping` has the device's qubits, or is "draw" for drawn values. A
        pulser.Sequence, or the text of its abstract representation, gives a `PulseResult`;
        `noise`: a pulser.NoiseModel; `options`: tolerance, trajectories, modulation;
        `parameter_values`: a mapping of its variables; `outputs`: also occupation, correlation,
        energy; `evaluation_times`: ascending, relative to the duration, at which there are all
        outputs as at the end.

        Raises ProgramError, OptionError, InfeasibleError, LimitExceededError, NotFoundError,
        NotReservedError, NotAllowedError, QueueFullError, KeyConflictError, ServiceLostError.
        """
        begun = perf_counter()
        if is_stim(circuit):
            from simenv.client.submission.detection import submit_detection

            return submit_detection(self._session, circuit, options, self._devices)
        if is_pulses(circuit):
            from simenv.client.submission.pulses import submit_pulses

            return submit_pulses(self._session, circuit, options, self._devices)
        prepared = prepare_one(circuit, options, self._devices)
        self._session.timings.packed_s += perf_counter() - begun
        task = send(self._session, prepared, options.get("idempotency_key"))[0]
        used = prepared.specs[0].seed
        return renewable(self._session, task, circuit, options, used, self._devices)

    @with_options_of(BatchOptions)
    def submit_many(self, work: Any, **options: Unpack[BatchOptions]) -> list[Task]:
        """Submit many tasks, in order, accepted or refused as a whole; options as in `submit`.

        `work`: several circuits; or a sweep, (circuit, parameter values), one task for each
        binding: an array (K, P) with columns in the order of `circuit.parameters`, or a mapping
        from parameter to K values; or a list of sweeps, `shots` then one number or one each. A
        sweep is sent as few tasks of at most 4,096 bindings, which are accepted, run and ended
        together. Each returned Task, such as `t-8k2f.17`, is one binding.

        `seed`: a list has one seed for each task, or for each of several sweeps. From one seed,
        item k gets BLAKE2b(seed, k), cut to 53 bits; the bindings of a sweep share it, and their
        index is a part of the random key. Item k has the idempotency key (idempotency_key, k).

        Raises BatchRefusedError with one error for each bad item. A refusal of the call as a whole
        (QueueFullError, KeyConflictError) is raised as it is.
        """
        if isinstance(work, tuple) and len(work) == 2 and is_pulses(work[0]):
            from simenv.client.submission.pulses import submit_pulse_sweep

            return list(submit_pulse_sweep(self._session, *work, options, self._devices))
        begun = perf_counter()
        prepared = prepare_many(work, options, self._devices)
        self._session.timings.packed_s += perf_counter() - begun
        return send(self._session, prepared, options.get("idempotency_key"))

    @with_options_of(SubmitOptions)
    def post(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task:
        """Submit one task without waiting for its acceptance; faster for many single circuits.
        Errors that the client finds are raised here. A refusal by the service is raised by the
        first use of the task that needs its acceptance: its id, its state, its result."""
        begun = perf_counter()
        prepared = prepare_one(circuit, options, self._devices)
        self._session.timings.packed_s += perf_counter() - begun
        return post(self._session, prepared, options.get("idempotency_key"), self._posted)

    @with_options_of(SubmitOptions)
    def run(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Result:
        """Submit a circuit and wait for its result; options as in `submit`. An interrupt cancels
        the task, unless an `idempotency_key` was given, with which it can be asked for again; so
        does a loss of the service before it has accepted the task. After the acceptance the task
        continues, and the error has its id (`tasks`)."""
        is_call = is_stim(circuit) or is_pulses(circuit)
        is_plain = options.get("compile") != FRESH and not is_call
        task = (self.post if is_plain else self.submit)(circuit, **options)
        try:
            return task.result()
        except BaseException as error:
            is_known = isinstance(error, SimenvError) and (error.tasks or not error.maybe_accepted)
            if isinstance(error, SimenvError) and error.tasks:
                error.retryable = False  # a repeated call would run it twice
            if options.get("idempotency_key") is None and not is_known:
                task.withdraw()
            raise

    def await_withdrawn(self, timeout_s: float) -> tuple[list[str], bool]:
        """Wait until the service has answered submissions that an interrupt withdrew; those that it
        accepts are cancelled. Returns the ids of these, and whether all are answered."""
        numbers, is_over = self._session.submits.await_withdrawn(timeout_s)
        return [task_name(number) for number in numbers], is_over

    @with_options_of(SubmitOptions)
    def explain(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Explanation:
        """Ask which engine `submit(circuit, ...)` would choose, and why no other; nothing is run.
        `engine` of the answer is "" if no engine here can run it. Raises ProgramError,
        OptionError."""
        if is_pulses(circuit):
            from simenv.client.submission.pulses import explain_pulses, pack_pulses
            from simenv.client.submission.sequence_device import device_of

            info = device_of(options, self._devices)
            packed = pack_pulses(circuit, options, info)
            return explain_pulses(self._session, packed, options, info)
        return explain(self._session, circuit, options, self._devices)

    def task(self, task: str | int) -> Task:
        """Return a task that was submitted before, by any process. Raises NotFoundError."""
        number = number_of(task)
        infos = self._session.task_infos([number])
        if not infos:
            handle = self._session.tasks.handle(number, Submission())
            self._session.tasks.wait(handle, None)  # returns at once
            raise handle.error() or NotFoundError(f"no task {task} here")
        return Task(self._session.tasks.handle(number, Submission(infos[0].name)), row_of(task))

    def tasks(self, tasks: Task | str | int | Iterable[Task | str | int]) -> list[TaskInfo]:
        """Return the service's information on one task or several; unknown tasks are left out."""
        return self._session.task_infos(numbers_of(tasks))

    def cancel(self, tasks: Task | str | int | Iterable[Task | str | int]) -> list[str]:
        """Cancel one task or several; return for each "cancelled", "cancelling" (a running task was
        asked to stop), "final" (it had ended before) or "unknown"."""
        return self._session.cancel(numbers_of(tasks))

    def queue(self, done: bool = False, limit: int = 100) -> tuple[int, list[TaskInfo]]:
        """Return the length of the queue and its first `limit` tasks: running, then waiting in
        order; `done`: ended tasks instead, newest first."""
        answer = self._session.request(m.GetQueue(0, done=done, limit=limit))
        return answer.total, answer.tasks

    def completions(
        self, since: int | None = None, cursor: str | None = None, follow: bool = False
    ) -> CompletionIterator:
        """Iterate over the environment's completions above number `since`, in order; also `async
        for`.

        `since=None`: above the position of the cursor. A named `cursor` is stored by the service
        under the owner's name: it survives this process, starts at 0, and is shared by all clients
        that name it. The unnamed cursor belongs to this client alone, is not stored, and starts at
        the newest completion at the time of its connection, so that programs of one owner do not
        disturb one another. The iteration ends when all are read and no task waits or runs; with
        `follow` never. It yields failed, cancelled and expired tasks too: see `Completion.error`.
        Acknowledge with `ack` when a result is stored. Raises OptionError.
        """
        if since is None and cursor is None:
            since = self._read_up_to
        elif since is None:
            since = self._session.request(m.GetCursor(0, cursor=checked_cursor(cursor))).seq
        return CompletionIterator(self._session, since, follow)

    def ack(self, seq: int, cursor: str | None = None) -> int:
        """Move a cursor to `seq`, which acknowledges all completions up to it. Return its new
        position.

        A named cursor is stored before this returns. Without a name the client's own cursor moves;
        see `completions`. Raises OptionError.
        """
        if cursor is not None:
            return self._session.request(m.Ack(0, cursor=checked_cursor(cursor), seq=seq)).seq
        self._read_up_to = checked_integer("seq", seq, 0, MAX_SEQ)
        return self._read_up_to

    @property
    def qpm(self) -> QPM:
        """QPM interface of this environment, for hosts that use hardware through a QPM."""
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
        """Return a new QPM with queues of its own.

        `pool`: the QPM represents this pool alone, and its circuits run there; None: the
        environment. `reservations`: "optional", or "required": every circuit must name one.
        `token_file`: a file that only its owner can read; every call of revision 2 must carry its
        content. `statevector_qubits`: wider statevectors are refused. `retention`: of unread
        completions; None: one hour, and the contract's limits. Raises OptionError, ConfigError,
        NotFoundError.
        """
        from simenv.client.qpm.provider import configured

        settings = (pool, reservations, token_file, statevector_qubits, retention)
        return configured(self, self._session, self.devices, *settings)

    def close(self) -> None:
        """Close the connection; tasks go on. Idempotent."""
        self._renewer.stop()
        self._session.close()
        self._renewer.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._session.channel.closed:
            return f"<simenv {self.name} | closed>"
        try:
            info = self._session.request(m.GetStatus(0), 0.5).info
        except SimenvError:
            return f"<simenv {self.name} | no answer>"
        return result_display.client_text(info)


def connect(
    name: str | None = None,
    *,
    service: str | Path | None = None,
    timeout_s: float = LOST_S,
    patience_s: float = RESTART_S,
    role: str | None = None,
) -> Client:
    """Connect to a running environment.

    `service`: its connection file, or the address of another user's environment,
    "local:OWNER/NAME" on this host or "munge:OWNER@HOST:PORT/NAME" on another node of the site;
    else `name`; else what SIMENV_SERVICE names; else `default`. `role`: "client" gives up the
    rights of an admin, whose requests then raise NotAllowedError; None: the role of the key.

    `timeout_s`: for the first answer. `patience_s`: silence of the service, in s, after which calls
    that wait for it raise ServiceLostError; they may be repeated. Until then the service may be
    started again: `simenv up`; math.inf: wait for ever. Raises NoServiceError,
    KeyRefusedError, VersionMismatchError, OptionError.
    """
    left_s = checked_timeout(timeout_s)
    if not isinstance(patience_s, Real) or isinstance(patience_s, bool) or not patience_s > 0.0:
        raise OptionError(f"patience_s={patience_s!r:.80}", hint="seconds above 0")
    if role not in (None, "client"):
        raise OptionError(f"role={role!r:.80}", hint="'client', or None for the role of the key")
    endpoint = address.find(name, Path(service) if service is not None else None)
    client = Client(endpoint, math.inf if left_s is None else left_s, as_client=role is not None)
    client.session.channel.liveness.be_patient(patience_s)
    return client


class SimenvExecutor(TaskExecutor):
    """Executor of circuits, for libraries that take one; its futures are tasks. `client`: None
    connects to the environment of this machine, and closes that connection at `shutdown`.
    `options`: defaults for every circuit, as in `Client.submit`. Thread-safe."""

    def __init__(self, client: Client | None = None, **options: Unpack[SubmitOptions]) -> None:
        self._owns_client = client is None
        self.client = connect() if client is None else client
        super().__init__(self.client.session)
        self._options = options

    def submit(  # type: ignore[override]
        self, circuit: Any, /, *arguments: Any, **options: Unpack[SubmitOptions]
    ) -> Task:
        """Submit a circuit; options as in `Client.submit` override those of the executor. Raises
        OptionError for a function, since an environment runs circuits; RuntimeError after
        `shutdown`; else like `Client.submit`."""
        self._check(circuit, arguments)
        merged: Any = {**self._options, **options}
        task = self.client.submit(circuit, **merged)
        self._remember([task])
        return task

    def map(  # type: ignore[override]
        self,
        circuits: Iterable[Any],
        /,
        *arguments: Any,
        timeout: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Iterator[Result]:
        """Submit circuits in one message; return an iterator over their results, in order.

        The iterator raises TimedOutError `timeout` seconds after this call, and the error of a task
        that failed. Tasks that are left when it ends early are cancelled. Raises like
        `Client.submit_many`.
        """
        self._check(circuits, arguments)
        circuits = list(circuits)
        for circuit in circuits:
            self._check(circuit)
        deadline = deadline_of(timeout)
        merged: Any = {**self._options, **options}
        tasks = self.client.submit_many(circuits, **merged)
        self._remember(tasks)
        return self._in_order(tasks, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down like `concurrent.futures.Executor.shutdown`; tasks go on in the environment."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if self._owns_client and (wait or not self._unfinished()):
            self.client.close()

    def _check(self, circuit: object, arguments: tuple[object, ...] = ()) -> None:
        """Raise OptionError for what is a function, and its arguments."""
        self._check_open()
        if callable(circuit):
            name = getattr(circuit, "__name__", type(circuit).__name__)
            raise OptionError(
                f"{name} is a function: this executor runs circuits",
                hint="give a QuantumCircuit, OpenQASM text or a file; functions run in"
                " the executor that client.functions() returns",
            )
        if arguments:
            hint = "submit takes one circuit, map one list of circuits, and options by name"
            raise OptionError(f"{len(arguments)} arguments after the circuits", hint=hint)
