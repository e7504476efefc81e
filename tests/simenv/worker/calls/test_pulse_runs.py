"""Runs of pulse sequences that end in the middle: the next attempt goes on, to the same answer."""

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from attempts import Tired, dying

from simenv.model import TaskOptions, calls
from simenv.model.pulses import PulseAnswer, PulseCall, PulseSizes
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog import samples
from simenv.worker.analog.engine import PulseEngine
from simenv.worker.result_files import RunCheckpoints
from simulators.engine import RunControl
from simulators.errors import Stopped
from simulators.statevector import checkpoint

pulser = pytest.importorskip("pulser")
ALL = ("counts", "memory", "statevector", "occupation", "correlation", "energy")
NOISES: dict[str, dict[str, Any]] = {
    "none": {},
    "constant in a shot": {"amp_sigma": 0.1, "p_false_neg": 0.1},
    "prepared alike": {"state_prep_error": 0.1},
    "events": {"dephasing_rate": 2.0, "relaxation_rate": 3.0},
    "masked": {},
    "masked, events": {"dephasing_rate": 2.0, "state_prep_error": 0.1},
}


@pytest.fixture(autouse=True)
def _writes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SHARE", 0)


def call_of(
    noise: dict[str, Any], atoms: int = 4, pulses: int = 3, masked: bool = False
) -> PulseCall:
    """`masked`: microwave pulses, with a mask on two atoms during the first one."""
    register = pulser.Register.from_coordinates([(6 * k, 0) for k in range(atoms)], prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    if masked:
        sequence.config_slm_mask(["q0", "q3"])
    sequence.declare_channel("global", "mw_global" if masked else "rydberg_global")
    for number in range(pulses):
        detuning = 0.0 if masked else 1.0
        sequence.add(pulser.Pulse.ConstantPulse(100, 8.0, detuning, float(number)), "global")
    return PulseCall(
        calls.CALL_FORMAT, sequence.to_abstract_repr(), PulseSizes(atoms, 1, 100 * pulses),
        tuple(each for each in ALL if not noise or each != "statevector"),
        noise=pulser.NoiseModel(**noise).to_abstract_repr() if noise else "",
        trajectories=12 if noise else 1, evaluation_times=(0.2, 0.5), tolerance=1e-6,
    )  # fmt: skip


def run(call: PulseCall, folder: Path | None, control: RunControl, shots: int = 100) -> bytes:
    checkpoints = RunCheckpoints(folder, 0.0) if folder is not None else None
    assigned = AssignedTask(5, 1, 0, b"", shots, 7, b"", 0, trusted=True)
    return PulseEngine(checkpoints).call(call, assigned, TaskOptions(), control)[0]


@pytest.mark.parametrize("noise", NOISES)
def test_an_attempt_goes_on_where_a_dead_one_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str
) -> None:
    call = call_of(NOISES[noise], masked="masked" in noise)
    expected = run(call, None, RunControl())
    # Nanoseconds and trajectories: in the second of the times, or in a later trajectory; before the
    # end of the mask.
    left = {"none": 180, "masked": 80, "prepared alike": 460}.get(noise, 1_700)
    with dying(monkeypatch), pytest.raises(Stopped):
        run(call, tmp_path, Tired(left))
    (folder,) = tmp_path.iterdir()
    assert list(folder.glob("*.h5"))
    control = RunControl()
    assert run(call, tmp_path, control) == expected
    assert 0.2 < control.progress.before < 0.95, "done by the first attempt"
    assert not folder.exists()


def test_an_answer_does_not_depend_on_threads() -> None:
    call = call_of(NOISES["events"], atoms=6)
    answers = set()
    for threads in (0, 1, 2, 5):
        control = RunControl()
        control.threads = threads
        answers.add(run(call, None, control))
    assert len(answers) == 1


def test_another_seed_or_sequence_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dying(monkeypatch), pytest.raises(Stopped):
        run(call_of({}), tmp_path, Tired(180))
    control = RunControl()
    other = call_of({}, pulses=4)
    assert run(other, tmp_path, control) == run(other, None, RunControl())
    assert control.progress.before == 0.0


def test_a_preempted_run_leaves_a_checkpoint(tmp_path: Path) -> None:
    class Preempted(Tired):
        __slots__ = ()

        def stop(self) -> None:
            if self.is_preempted:
                super().stop()
            else:
                self.preempt()

    call = call_of({})
    with pytest.raises(Stopped):
        run(call, tmp_path, Preempted(180))
    control = RunControl()
    assert run(call, tmp_path, control) == run(call, None, RunControl())
    assert control.progress.before > 0.2


@pytest.mark.parametrize("outputs", [("counts",), ("energy", "correlation", "counts")])
def test_a_wide_run_stops_soon(outputs: tuple[str, ...]) -> None:
    times = tuple(k / 600 for k in range(600))
    call = msgspec.structs.replace(call_of({}, atoms=22), outputs=outputs, evaluation_times=times)
    control = RunControl()
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(Stopped):
            run(call, None, control, shots=10)
        ended.append(time.thread_time())

    thread = threading.Thread(target=work)
    thread.start()
    while control.progress.done < 2 and thread.is_alive():
        time.sleep(0.01)
    assert thread.ident is not None
    begun = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    control.stop()
    thread.join(60)
    assert ended[0] - begun < 0.5, "CPU time"


LOT = 30  # trajectories of a batch
DRAWN: dict[str, Any] = {"amp_sigma": 0.1, "temperature": 50.0, "state_prep_error": 0.1}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "BATCH_BYTES", LOT * 24 * 4 * 301)


def drawn(trajectories: int, noise: dict[str, Any] = DRAWN) -> list[samples.SampledSequence]:
    call = msgspec.structs.replace(call_of(noise), trajectories=trajectories)
    return list(samples.sampled(call, 5, RunControl(), trusted=True))


@pytest.mark.usefixtures("small_batches")
def test_batches_have_all_trajectories_once() -> None:
    batches = drawn(100)
    assert [len(each.trajectories) for each in batches] == [30, 30, 30, 10]
    rabi = [each.rabi for batch in batches for each in batch.trajectories]
    assert len(set(rabi)) == 100
    assert rabi == [each.rabi for batch in drawn(100) for each in batch.trajectories]
    assert rabi[:60] == [each.rabi for batch in drawn(60) for each in batch.trajectories]


@pytest.mark.usefixtures("small_batches")
def test_draws_that_are_alike_are_counted_over_all_batches() -> None:
    batches = drawn(2_000, {"state_prep_error": 0.2})
    assert sum(each.repeats for batch in batches for each in batch.trajectories) == 2_000


def test_each_trajectory_has_a_preparation_of_its_own() -> None:
    rate, number = 0.2, 4_000
    found = np.zeros(2**4)
    for batch in drawn(number, {"state_prep_error": rate}):
        for one in batch.trajectories:
            rabi = samples.program_of(batch, one).rabi
            found[np.packbits(~rabi.any(axis=0)).item() >> 4] += one.repeats
    bits = np.arange(2**4)[:, None] >> np.arange(4) & 1
    expected = number * np.where(bits, rate, 1 - rate).prod(axis=1)
    distance = ((found - expected) ** 2 / expected).sum()
    assert distance < 57.9, "chi-square of 15 degrees of freedom, five sigma"


def test_shots_of_like_trajectories_are_no_neighbours() -> None:
    shots, atoms = 4_000, 4
    call = msgspec.structs.replace(call_of({"state_prep_error": 0.5}), trajectories=shots)
    answer = msgspec.msgpack.decode(run(call, None, RunControl(), shots), type=PulseAnswer)
    memory = np.frombuffer(answer.memory, np.uint64).reshape(3, shots)
    bits = memory[-1, :, None] >> np.arange(atoms, dtype=np.uint64) & np.uint64(1)
    first, second = bits.reshape(2, shots // 2, atoms).mean(axis=1)
    assert first == pytest.approx(second, abs=5 / np.sqrt(shots)), "five sigma at most"
    outcomes = np.frombuffer(answer.outcomes[-1], np.uint64)
    counts = dict(zip(outcomes, np.frombuffer(answer.counts[-1], np.uint64), strict=True))
    assert counts == dict(zip(*np.unique(memory[-1], return_counts=True), strict=True))


@pytest.mark.usefixtures("small_batches")
def test_preparations_are_drawn_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "BATCH_BYTES", 3 * 24 * 4 * 301)
    made: list[int] = []
    inner = samples._prepared
    monkeypatch.setattr(samples, "_prepared", lambda data, row: made.append(1) or inner(data, row))
    batches = drawn(2_000, {"state_prep_error": 0.2})
    rows = [each.rabi for batch in batches for each in batch.trajectories]
    assert len(batches) == 6
    assert len(made) == len(set(rows)) == len(rows) == 16


@pytest.mark.usefixtures("small_batches")
def test_a_batch_draws_no_other_trajectories(monkeypatch: pytest.MonkeyPatch) -> None:
    from pulser._hamiltonian_data import hamiltonian_data

    numbers: list[int] = []
    inner = hamiltonian_data.HamiltonianData._create_noise_trajectories

    def counted(self: Any, number: int) -> Any:
        numbers.append(number)
        return inner(self, number)

    monkeypatch.setattr(hamiltonian_data.HamiltonianData, "_create_noise_trajectories", counted)
    drawn(100)
    assert sum(numbers) == 100 + 1  # and that without noise, for the energy
