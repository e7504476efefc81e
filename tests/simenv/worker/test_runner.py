"""Runner, session, noise, log and result files of a worker."""

import math
import os
import re
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from busy_circuits import ENDLESS
from failing import fails
from interpreter import python
from qiskit import QuantumCircuit
from service import program

from simenv.client.circuits import load
from simenv.model import TaskOptions, TaskState
from simenv.wire import codec
from simenv.wire.keyfiles import KEYS_FORMAT, WorkerBootstrap, new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.client import EXIT_GPU, STATES, AssignChunk, AssignedTask, AttemptResult
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.unix_streams import UnixListener
from simenv.wire.transport.zmq_transport import WORKER_STREAM
from simenv.worker import runner as runner_module, session
from simenv.worker.main import log_of
from simenv.worker.runner import PlanCache, Runner
from simenv.worker.session import MAX_STOPS, RunningTask
from simulators.catalog import COUNTS_QUBITS
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.compiler import kernel
from simulators.compiler.kernel_time import busy_ns, spent_ns
from simulators.engine import CircuitParts, Engine, Request, RunControl, RunOptions
from simulators.errors import BadAnswer, DeviceLost
from simulators.execution.outputs import BoundRun, CountedState, FinalState
from simulators.external.engine import ExternalEngine
from simulators.statevector.engine import StatevectorEngine


def assigned(packed: bytes, task: int = 1, **changes: object) -> AssignedTask:
    fields: dict[str, object] = {
        "task": task, "attempt": 1, "terms": 0, "program": packed, "shots": 1000, "seed": 5,
        "bindings": b"", "binding": 0,
    }  # fmt: skip
    fields.update(changes)
    return AssignedTask(**fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


def run(
    runner: Runner, task: AssignedTask, terms: TaskOptions | None = None, slots: int = 1
) -> AttemptResult:
    chunk = AssignChunk(slots, 2**30, False, "statevector", "test", [], [])
    return runner.run(task, terms or TaskOptions(), chunk, time.perf_counter_ns())


def test_counts_depend_on_seed_and_not_on_attempt_or_slots(runner: Runner) -> None:
    packed = program(14, 0.9).packed()
    first = run(runner, assigned(packed))
    again = run(runner, assigned(packed, attempt=7), slots=2)
    other = run(runner, assigned(packed, seed=6))
    assert STATES[first.state] is TaskState.DONE
    assert first.payload == again.payload
    assert first.payload != other.payload


def test_engine_error_gives_failed_result_with_its_message(runner: Runner) -> None:
    result = run(runner, assigned(program(2).packed()), TaskOptions(outputs=("statevector",)))
    failure = codec.failure(result.payload)
    assert (STATES[result.state], failure.reason) == (TaskState.FAILED, "engine")
    assert "measure" in failure.message


def test_a_running_task_stops_when_asked(runner: Runner) -> None:
    current = RunningTask(runner)
    packed = load(ENDLESS).packed
    assert current.begin(1, 1) == ""
    timer = threading.Timer(0.2, current.stop, (1, 1, "cancelled"))
    timer.start()
    result = run(runner, assigned(packed))
    timer.join()
    assert STATES[result.state] is TaskState.CANCELLED
    assert current.begin(2, 1) == ""
    assert STATES[run(runner, assigned(program(2).packed(), task=2)).state] is TaskState.DONE


def test_a_task_stopped_before_it_began_never_runs(runner: Runner) -> None:
    current = RunningTask(runner)
    current.stop(8, 3, "run_timeout")
    assert (current.begin(8, 2), current.begin(8, 3)) == ("", "run_timeout")
    assert current.begin(8, 3) == ""
    for ended in range(1, MAX_STOPS):  # these come too late
        current.stop(ended, 1, "cancelled")
    current.stop(9_001, 1, "cancelled")
    current.stop(9_002, 1, "run_timeout")
    assert [current.begin(task, 1) for task in (9_001, 9_002)] == ["cancelled", "run_timeout"]


def test_plans_are_cached_by_structure_and_evicted_beyond_size_limit(runner: Runner) -> None:
    engine = runner.engine("statevector")
    cache = PlanCache(bound_bytes=1)

    def plan(num_qubits: int, angle: float) -> object:
        result = program(num_qubits, angle)
        return cache.get(engine, result, Circuit.from_program(result), RunOptions())

    wide = plan(14, 0.1)
    assert plan(14, 0.7) is wide  # other angles, same structure
    assert plan(15, 0.1) is not wide
    assert len(cache) == 1  # the bound is one byte: only the newest stays
    assert plan(14, 0.1) is not wide


def test_plans_count_what_their_runs_add() -> None:
    engine, cache = StatevectorEngine(), PlanCache(bound_bytes=2**40)

    def run_of(num_qubits: int, angle: float) -> None:
        packed = program(num_qubits, angle)
        circuit = Circuit.from_program(packed)
        plan = cache.get(engine, packed, circuit, RunOptions())
        engine.run(plan, circuit, Request(10, 1), RunOptions(), RunControl())

    for angle in (0.1, math.pi / 2, math.pi):  # a program each: quarter turns merge otherwise
        run_of(COUNTS_QUBITS + 1, angle)
    run_of(COUNTS_QUBITS + 2, 0.1)
    grown, _ = cache._plans.values()
    first, _ = cache._sizes.values()
    assert first == grown.memory_bytes
    one = PlanCache(bound_bytes=2**40)
    packed = program(COUNTS_QUBITS + 1, 0.1)
    one.get(engine, packed, Circuit.from_program(packed), RunOptions())
    assert cache._held_bytes > 2 * one._held_bytes


def test_plans_of_parts_are_bounded_by_what_they_grow_to(runner: Runner) -> None:
    """Their schedules are made when they are run."""
    engine = runner.engine("statevector")
    cache = PlanCache(bound_bytes=200_000)
    for layers in range(1, 61):
        built = QuantumCircuit(4, 4)
        for _ in range(layers):
            built.h(range(4))
            built.cx([0, 1, 2], [1, 2, 3])
        built.measure(range(4), range(4))
        outcome = load(built).program
        circuit = Circuit.from_program(outcome)
        options = RunOptions(parts=CircuitParts((circuit.ops.size - 1,)))
        plan = cache.get(engine, outcome, circuit, options)
        engine.run(plan, circuit, Request(10, 1), options, RunControl())
    *older, _ = cache._plans.values()
    assert 1 < len(older) < 59
    assert sum(plan.memory_bytes for plan in older) <= 200_000


def test_plans_with_noise_are_cached_by_digest_and_engine_settings(runner: Runner) -> None:
    """Small circuits too, whose plans without noise cost less than a look-up."""
    cache = PlanCache(bound_bytes=1 << 20)
    result = program(2, 0.0)
    circuit = Circuit.from_program(result)

    def plan(name: str, digest: bytes, twirl: int = 0) -> object:
        noise = NoiseProgram(digest, frozenset(), np.zeros((0, 4), np.int64))
        options = RunOptions(settings=(("twirl", twirl),) if name == "stabilizer" else ())
        return cache.get(runner.engine(name), result, circuit, options, noise)

    first = plan("statevector", b"1")
    assert plan("statevector", b"1") is first
    assert plan("statevector", b"2") is not first
    assert plan("stabilizer", b"1", 0) is not plan("stabilizer", b"1", 1)


def test_rows_of_one_task_equal_results_of_single_bindings(runner: Runner) -> None:

    other = msgspec.structs.replace(program(2, 0.0), num_slots=1, slots=np.zeros(2, "i4").tobytes())
    angles = np.array([0.0, 1.1, 2.2])
    swept = assigned(other.packed(), bindings=angles.tobytes(), binding=7, count=3)
    outcome = codec.result_data(run(runner, swept).payload)
    assert (outcome.count, outcome.binding, outcome.seed) == (3, 7, 5)
    ends = np.cumsum(np.frombuffer(outcome.rows, np.uint32))
    assert ends[-1] == len(outcome.counts) // 4
    for row, end in enumerate(ends.tolist()):
        alone = assigned(other.packed(), bindings=angles[row : row + 1].tobytes(), binding=7 + row)
        result = codec.result_data(run(runner, alone).payload)
        first = end - len(result.counts) // 4
        assert outcome.outcomes[first:end] == result.outcomes
        assert outcome.counts[4 * first : 4 * end] == result.counts


def test_a_failed_sweep_names_its_binding() -> None:

    class Picky(ExternalEngine):
        def final_state(self, run: BoundRun) -> FinalState:
            if run.params[0] > 1:
                raise BadAnswer("too far", hint="turn less")
            return CountedState(run.circuit, {0: run.request.shots})

    other = Runner()
    other.hold(Picky(None))  # type: ignore[arg-type]
    turned = program(2, 0.0)
    turned = msgspec.structs.replace(turned, num_slots=1, slots=bytes(8))
    angles, chunk = np.array([0.0, 0.5, 2.0]), AssignChunk(1, 2**30, False, "external", "t", [], [])
    swept = assigned(turned.packed(), bindings=angles.tobytes(), binding=7, count=3)
    failure = codec.failure(other.run(swept, TaskOptions(), chunk, 0).payload)
    assert failure.message == "binding 9 of the sweep: too far"
    alone = assigned(turned.packed(), bindings=angles[2:].tobytes(), binding=9)
    assert codec.failure(other.run(alone, TaskOptions(), chunk, 0).payload).message == "too far"


def test_an_error_that_no_engine_foresaw_names_its_line_and_is_in_the_log_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(ExternalEngine):
        def final_state(self, run: BoundRun) -> FinalState:
            raise ZeroDivisionError(f"{run.request.shots} of none")

    broken = Runner()
    broken.hold(Broken(None))  # type: ignore[arg-type]
    chunk = AssignChunk(1, 2**30, False, "external", "t", [], [])
    results = [broken.run(assigned(program(2).packed()), TaskOptions(), chunk, 0) for _ in range(2)]
    for result in results:
        text = r"ZeroDivisionError: \d+ of none \(test_runner.py:\d+, in final_state\)"
        assert re.fullmatch(text, codec.failure(result.payload).message)
    logged = capsys.readouterr().err
    assert logged.count("Traceback (most recent call last):") == 1
    assert logged.rstrip().endswith("of none")


def test_long_error_message_is_truncated() -> None:
    assert len(runner_module._failure("engine", ValueError("x" * 10**6))) < 10_000


def test_number_of_threads_is_set_only_for_running_attempt() -> None:
    runner = Runner()
    current = RunningTask(runner)
    current.begin(7, 1)
    current.set_threads(7, 2, 1)
    current.set_threads(8, 1, 1)
    assert runner.control.threads == 0
    current.set_threads(7, 1, 1)
    assert runner.control.threads == 1
    current.begin(8, 1)
    assert runner.control.threads == 0


class ColdRunner(Runner):
    """Compiles a kernel when an engine is first asked for, as on a machine without any."""

    def engine(self, name: str) -> Engine:
        @kernel.kernel("INT -> INT", group="small")
        def added(number):  # type: ignore[no-untyped-def]
            return number + 1

        assert added(1) == 2
        return super().engine(name)


def test_compile_time_of_first_task_is_reported_as_its_own_stage() -> None:
    cold, begin_ns, spent = ColdRunner(), time.perf_counter_ns(), spent_ns()
    first = run(cold, assigned(program(14).packed()))
    took_us, spent_us = (time.perf_counter_ns() - begin_ns) // 1000, (spent_ns() - spent) // 1000
    assert 0 < first.compile_us <= spent_us
    assert first.run_us + first.compile_us <= took_us
    assert (first.decode_us + first.plan_us + first.engine_us + first.encode_us) <= first.run_us
    chunk = AssignChunk(1, 2**30, False, "statevector", "test", [], [])
    task, terms = assigned(program(14).packed()), TaskOptions()
    cold.run(task, terms, chunk, time.perf_counter_ns())
    assert cold.run(task, terms, chunk, time.perf_counter_ns()).compile_us == 0


def test_load_of_an_engine_is_told_as_that_of_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Package(StatevectorEngine):
        def warm_up(self) -> None:
            told.append(busy_ns())

    monkeypatch.setattr("simenv.worker.runner.registry.create", lambda *_: Package())
    result = run(Runner(), assigned(program(14).packed()))
    assert told[0] > 0, "heartbeats say that nothing is compiled"
    assert result.compile_us > 0


def test_worker_ends_when_its_gpu_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attempt counts as lost, so another worker runs the task again."""

    def leave(code: int, why: str) -> None:
        assert "context is lost" in why
        raise SystemExit(code)

    def lose(*_args: object) -> None:
        raise DeviceLost("the GPU failed", hint="its CUDA context is lost")

    monkeypatch.setattr(runner_module, "exit_process", leave)
    runner = Runner()
    monkeypatch.setattr(runner, "_compute", lose)
    assert fails(SystemExit, "", run, runner, assigned(program(2).packed())).code == EXIT_GPU


def test_results_too_large_for_one_message_are_sent_separately() -> None:
    half = session.ANSWER_BYTES // 2 + 1
    results = [m.AttemptResult(task, 1, 2, bytes(half), 0) for task in (1, 2)]
    bodies = session.packed(results)
    entries = [codec.from_worker(body) for body in bodies]
    assert [done.results for done in entries] == [results[:1], results[1:]]


def test_result_too_large_for_any_message_is_reported_as_failure() -> None:
    small = m.AttemptResult(1, 1, 2, b"r", 0)
    large = m.AttemptResult(2, 7, 2, bytes(m.MAX_MESSAGE_BYTES), 0)
    bodies = session.packed([small, large])
    assert all(len(body) <= session.ANSWER_BYTES for body in bodies)
    first, second = (codec.from_worker(body) for body in bodies)
    assert first.results == [small]
    (failed,) = second.results
    assert (failed.task, failed.attempt, m.STATES[failed.state]) == (2, 7, "FAILED")
    failure = codec.failure(failed.payload)
    assert failure.reason == "limit"
    assert str(session.ANSWER_BYTES) in failure.message


def test_idle_worker_does_deferred_work_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_S", 0.01)
    monkeypatch.setattr(session, "FOREVER_S", 0.02)
    done: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="simenv-") as folder,
        closing(UnixListener()) as streams,
    ):
        streams.bind(Path(folder, WORKER_STREAM), PeerKind.WORKER)
        service = WorkerBootstrap(
            KEYS_FORMAT, os.uname().nodename, folder, "token", server_key=new_pair().public, epoch=1
        )
        idle = session.Session(service, "w", 1, Runner())
        idle.when_idle(lambda: done.append(f"rest, waiting: {idle._current.waiting}"))
        assert idle.work()
        assert idle.work()
        idle._work.close()
        idle._control.close()
    assert done == ["rest, waiting: False"]


SCRIPT = """
import os, sys
from contextlib import closing
from pathlib import Path
from simenv.worker.main import write_to
write_to(Path(sys.argv[1]))
print("said", flush=True)
os.write(2, b"complained\\n")
os.system("echo from below")
"""


def test_output_of_worker_is_appended_to_its_private_log(tmp_path: Path) -> None:
    path = tmp_path / "main-0.log"
    done = python("-c", SCRIPT, path, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("before\n")
    python("-c", SCRIPT, path)
    assert path.read_text() == "before\nsaid\ncomplained\nfrom below\n"
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "elsewhere")
    assert python("-c", SCRIPT, path, check=False).returncode != 0
    assert not (tmp_path / "elsewhere").exists()


def test_each_rank_has_its_own_log() -> None:
    path = Path("/logs/main.x4-0.log")
    assert (log_of(path, 0), log_of(path, 3)) == (path, Path("/logs/main.x4-0.r3.log"))
