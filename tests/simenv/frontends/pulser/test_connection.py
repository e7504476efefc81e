"""Batches of Pulser's jobs: durable, read by other connections, open, cancelled, refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pulser")

import pulser
from atom_sequences import hexagon, pair
from busy_circuits import ENDLESS
from failing import fails
from live import environment
from pulser.backend.remote import BatchStatus, JobParams, RemoteResultsError

import simenv
from simenv.client.client import Client
from simenv.errors import KeyConflictError, NotFoundError, OptionError, SimenvError
from simenv.frontends.pulser import RemoteSimenvEmulator, SimenvConfig, SimenvConnection
from simenv.model.jobs import JobSelector

PATIENCE_S = 120.0


def test_jobs_of_a_parametrized_sequence_are_read_by_another_connection(env: Client) -> None:
    connection = SimenvConnection(env, seed=5)
    config = pulser.backend.BackendConfig(default_num_shots=200)
    backend = pulser.QPUBackend(hexagon("t"), connection, config=config)
    params = [{"variables": {"t": 100}}, {"runs": 300, "variables": {"t": 300}}]
    batch = backend.run(params, wait=True)
    assert batch.get_batch_status() is BatchStatus.DONE
    first, second = batch.results
    assert sum(first.final_bitstrings.values()) == 200
    assert sum(second.final_bitstrings.values()) == 300
    assert first.atom_order == tuple(f"q{k}" for k in range(7))
    assert (first.total_duration, second.total_duration) == (300, 500)
    with simenv.connect(service=env.service) as client:
        other = SimenvConnection(client)
        again = pulser.backend.RemoteResults(batch.batch_id, other)
        assert [each.final_bitstrings for each in again] == [
            first.final_bitstrings,
            second.final_bitstrings,
        ]
        assert list(again.get_available_results()) == batch.job_ids
        one = other.get_results(batch.batch_id, batch.job_ids[1:])
        assert one[0].final_bitstrings == second.final_bitstrings
    repeated = backend.run(params, wait=True)
    assert [each.final_bitstrings for each in repeated] == [
        first.final_bitstrings,
        second.final_bitstrings,
    ]


def test_jobs_are_added_to_an_open_batch_until_it_is_closed(env: Client) -> None:
    connection = SimenvConnection(env)
    backend = pulser.QPUBackend(hexagon(), connection)
    with backend.open_batch():
        first = backend.run([{"runs": 10}])
        second = backend.run([{"runs": 20}, {"runs": 30}], wait=True)
        assert first.batch_id == second.batch_id
    whole = connection.get_results(first.batch_id)
    assert whole.job_ids == first.job_ids + second.job_ids
    for task in first.job_ids:
        env.task(task).wait(timeout_s=PATIENCE_S)
    assert [sum(each.final_bitstrings.values()) for each in whole] == [10, 20, 30]
    fails(KeyConflictError, "closed", connection.submit, hexagon(), batch_id=first.batch_id)


def test_jobs_without_results_are_named(env: Client) -> None:
    connection = SimenvConnection(env)
    busy = env.submit(ENDLESS, shots=1)
    runs: list[JobParams] = [{"runs": 10}, {"runs": 20}]
    batch = connection.submit(hexagon(), job_params=runs, after=[busy])
    assert batch.get_batch_status() is BatchStatus.PENDING
    first, second = batch.job_ids
    with pytest.raises(RemoteResultsError, match=f"{first} is QUEUED"):
        connection._fetch_result(batch.batch_id, None)
    connection.cancel(batch.batch_id, [first])
    env.cancel(busy)
    env.task(second).wait(timeout_s=PATIENCE_S)
    assert batch.get_batch_status() is BatchStatus.ERROR
    assert batch.get_available_results() == {}
    with pytest.raises(RemoteResultsError, match="which it comes after"):
        connection._fetch_result(batch.batch_id, [second])


def test_a_refused_job_leaves_neither_batch_nor_tasks(env: Client) -> None:
    connection = SimenvConnection(env)
    before = env.queue(done=True)[0] + env.queue()[0]
    runs: list[JobParams] = [{"runs": 5}, {"runs": -1}]
    fails(OptionError, "shots", connection.submit, hexagon(), job_params=runs)
    fails(NotFoundError, "", connection.submit, hexagon(), job_params=runs[:1], after=["t-zzzzzz"])
    assert env.queue(done=True)[0] + env.queue()[0] == before
    assert env.jobs.listed(JobSelector(("pulser", "submission"), is_open=True))[0] == []
    fails(NotFoundError, "no-such-batch", connection.get_results, "no-such-batch", ["t-1"])


def test_parameters_that_no_job_has_are_refused(env: Client) -> None:
    connection = SimenvConnection(env)
    config = SimenvConfig(observables=[pulser.backend.BitStrings()])
    wrong: Any
    for wrong, message in (({"run": 5}, "'run'"), ("runs", "'runs'"), ({"runs": 0}, "runs=0")):
        options: Any = {"job_params": [wrong], "config": config}
        fails(OptionError, message, connection.submit, pair(), **options)
        if "0" not in message:
            fails(OptionError, message, connection.submit, pair(), job_params=[wrong])


def test_variables_that_a_sequence_does_not_take_are_refused_by_name(env: Client) -> None:
    connection = SimenvConnection(env)
    config = SimenvConfig(observables=[pulser.backend.BitStrings()])
    wrong: Any
    for wrong in ({"t": 100, "other": 1}, {"t": -100}):
        params: list[JobParams] = [{"runs": 5, "variables": wrong}]
        for each in (config, None):
            options: Any = {"job_params": params, "config": each}
            fails(SimenvError, "", connection.submit, hexagon("t"), **options)


def test_a_batch_has_the_configuration_it_was_opened_with(env: Client) -> None:
    connection = SimenvConnection(env, seed=7)
    config = SimenvConfig(observables=[pulser.backend.Occupation()])
    batch = connection.submit(pair(), open=True, config=config)
    other = SimenvConfig(observables=[pulser.backend.Occupation(evaluation_times=[0.5])])
    for wrong in (None, other):
        options: Any = {"batch_id": batch.batch_id, "config": wrong}
        fails(KeyConflictError, "another configuration", connection.submit, pair(), **options)
    added = connection.submit(pair(), batch_id=batch.batch_id, config=config, wait=True)
    assert len(added[0].occupation[0]) == 2
    connection._close_batch(batch.batch_id)


def test_configurations_are_those_of_any_backend_and_their_seed_comes_first(env: Client) -> None:
    connection = SimenvConnection(env, seed=7)
    plain = pulser.backend.EmulationConfig(observables=[pulser.backend.Occupation()])
    assert connection.submit(pair(), config=plain, wait=True)[0].occupation
    no_one: Any = pulser.backend.BackendConfig(default_num_shots=5)
    fails(OptionError, "config=", connection.submit, pair(), config=no_one)
    state = pulser.backend.StateRepr.from_state_amplitudes(
        eigenstates=("r", "g"), amplitudes={"rr": 1.0}
    )
    excited = plain.with_changes(initial_state=state)
    fails(OptionError, "initial_state", connection.submit, pair(), config=excited)
    config = SimenvConfig(observables=[pulser.backend.BitStrings(num_shots=400)], seed=8)
    backend = RemoteSimenvEmulator(pair(), connection, config=config)
    batch = backend.run(wait=True)
    assert env.task(batch.job_ids[0]).result().seed == 8


def test_a_repeated_call_with_its_key_returns_the_same_batch(env: Client) -> None:
    runs: list[JobParams] = [{"runs": 5}, {"runs": 6}]
    options: dict[str, Any] = {"job_params": runs, "idempotency_key": "pulser-1"}
    first = SimenvConnection(env).submit(hexagon(), wait=True, **options)
    again = SimenvConnection(env).submit(hexagon(), **options)
    assert (again.batch_id, again.job_ids) == (first.batch_id, first.job_ids)
    assert [sum(each.final_bitstrings.values()) for each in again] == [5, 6]
    options["job_params"] = runs[:1]
    fails(KeyConflictError, "other content", SimenvConnection(env).submit, hexagon(), **options)
    opened = SimenvConnection(env).submit(hexagon(), open=True).batch_id
    options["batch_id"] = opened
    fails(OptionError, "new batch", SimenvConnection(env).submit, hexagon(), **options)


def test_devices_are_those_that_sequences_may_be_written_for(env: Client) -> None:
    connection = SimenvConnection(env)
    devices = connection.fetch_available_devices()
    assert devices["AnalogDevice"] == pulser.AnalogDevice
    machine = devices["neutral-atoms-analog"]
    apart = pulser.Register.rectangle(1, 2, spacing=20.0, prefix="q")
    flip = pulser.Sequence(apart, machine)
    flip.declare_channel("ising", "rydberg_global")
    flip.add(pulser.Pulse.ConstantPulse(250, 4 * np.pi, 0.0, 0.0), "ising")
    batch = pulser.QPUBackend(flip, connection).run([{"runs": 500}], wait=True)
    details: Any = env.task(batch.job_ids[0]).result()
    assert details.device == "neutral-atoms-analog"
    counts = batch[0].final_bitstrings
    assert 250 < counts["11"] < 475, "errors of detection"
    too_many = pulser.QPUBackend(flip, connection)
    with pytest.raises(ValueError, match="1000"):
        too_many.run([{"runs": 2_000}])
    renamed = dataclasses.replace(pulser.AnalogDevice, name="Elsewhere")
    sequence = pulser.Sequence(hexagon().register, renamed)
    sequence.declare_channel("ising", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(100, 1.0, 0.0, 0.0), "ising")
    with pytest.raises(ValueError, match="does not match any"):
        pulser.QPUBackend(sequence, connection).run([{"runs": 1}])


def test_results_survive_the_death_of_the_service() -> None:
    with environment() as live:
        with live.client() as client:
            oracle = SimenvConnection(client, seed=3).submit(
                hexagon(), job_params=[{"runs": 100}], wait=True
            )
            expected = oracle[0].final_bitstrings
            batch = SimenvConnection(client, seed=3).submit(hexagon(), job_params=[{"runs": 100}])
        live.crash()
        live.up()
        with SimenvConnection(live.name) as connection:
            results = connection.get_results(batch.batch_id, batch.job_ids)
            connection.client.task(batch.job_ids[0]).wait(timeout_s=PATIENCE_S)
            assert results[0].final_bitstrings == expected
