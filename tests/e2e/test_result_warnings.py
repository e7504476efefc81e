"""Warnings of a result reach whoever reads it, through each interface of Python."""

import warnings
from typing import Any

import pytest
from emulated import DEVICE, ghz

from simenv.client.client import Client
from simenv.errors import SimenvWarning
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.gateway.ibm.programs import SubmittedJob

NOISE: dict[str, Any] = {"gate.depolarizing": 1e9}
TEXT = r"^gate\.depolarizing \* 1e\+09 is above"


def one(caught: pytest.WarningsRecorder) -> str:
    """The text of the only warning, which is at a line of this file."""
    (entry,) = caught
    assert entry.filename == __file__
    assert issubclass(entry.category, UserWarning)
    return str(entry.message)


def test_python_client_warns_once_for_each_task(env: Client) -> None:
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        result = env.run(ghz(), device=DEVICE, noise=NOISE, shots=50)
    assert result.warnings == (one(caught),)
    task = env.submit(ghz(), device=DEVICE, noise=NOISE, shots=50)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        assert task.result() is task.results()[0] is task.result()
    one(caught)
    sweep = env.submit_many([ghz()] * 2, device=DEVICE, noise=NOISE, shots=50)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        [each.result() for each in sweep]
    assert len(caught) == len({each.handle.number for each in sweep})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert env.run(ghz(), device=DEVICE, shots=50).warnings == ()


def test_warning_made_an_error_leaves_the_result(env: Client) -> None:
    task = env.submit(ghz(), device=DEVICE, noise=NOISE, shots=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SimenvWarning)
        with pytest.raises(SimenvWarning, match=TEXT):
            task.result()
    assert task.result().shots == 50


def test_jobs_of_qiskit_warn_and_have_the_text_in_their_metadata(env: Client) -> None:
    backend = SimenvBackend(DEVICE, env, noise=NOISE)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        header = backend.run(ghz(), shots=50).result().results[0].header
    assert header["warnings"] == [one(caught)]
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        sampled = SimenvSampler(backend).run([ghz()], shots=50).result()
    assert sampled.metadata["simenv"][0]["warnings"] == [one(caught)]
    bare = ghz().remove_final_measurements(inplace=False)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        estimated = SimenvEstimator(backend).run([(bare, "ZZZ")], precision=0.1).result()
    assert estimated.metadata["simenv"][0]["warnings"] == [one(caught)]


def test_jobs_of_ibms_and_iqms_clients_take_the_warnings_of_their_tasks(env: Client) -> None:
    tasks = [env.submit(ghz(), device=DEVICE, noise=noise, shots=50) for noise in (NOISE, "on")]
    job = SubmittedJob(tasks, lambda: [task.wait() for task in tasks], lambda *_: "{}")
    assert job.result().warnings == list(tasks[0].result().warnings)
