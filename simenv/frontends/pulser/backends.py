"""Pulser's emulator backends over an environment, with a connection and without."""

from __future__ import annotations

from typing import Any

import pulser
from pulser.backend import (
    BitStrings,
    EmulationConfig,
    EmulatorBackend,
    RemoteResults,
    Results,
    StateResult,
)
from pulser.backend.remote import JobParams, RemoteBackend, RemoteConnection

from simenv.client.client import Client, connect
from simenv.client.submission.pulses import PulseResult
from simenv.frontends.pulser.emulation import (
    SimenvConfig,
    checked_task_options,
    results_of,
    submit_options,
)

__all__ = ["RemoteSimenvEmulator", "SimenvEmulator"]


class SimenvEmulator(EmulatorBackend):  # type: ignore[misc]  # pulser is untyped
    """Emulator whose `run` waits for the results of a task. Its default configuration has bit
    strings and the state at the end, as that of pulser-simulation's backend."""

    default_config = SimenvConfig(observables=[BitStrings(evaluation_times=[1.0]), StateResult()])

    def __init__(
        self,
        sequence: pulser.Sequence,
        *,
        config: EmulationConfig[Any] | None = None,
        mimic_qpu: bool = False,
        env: Client | str | None = None,
        **options: Any,
    ) -> None:
        """`env`: a client; a name, or None: each run connects by `simenv.connect(env)`. `options`:
        of the task, as in `Client.submit`: engine, pool, priority, account ... Raises OptionError
        for those that the configuration decides."""
        super().__init__(sequence, config=config, mimic_qpu=mimic_qpu)
        self._env, self._options = env, checked_task_options(options)

    def run(self) -> Results:
        """Run the sequence and return its results. Raises like `Client.run`."""
        if isinstance(self._env, Client):
            return self._run(self._env)
        with connect(self._env) as client:
            return self._run(client)

    def _run(self, client: Client) -> Results:
        options = submit_options(self._config, self._sequence, None, self._options)
        result: Any = client.run(self._sequence, **options)
        assert isinstance(result, PulseResult)
        return results_of(self._config, result)


class RemoteSimenvEmulator(RemoteBackend, EmulatorBackend):  # type: ignore[misc]
    """Emulator whose jobs are submitted through a SimenvConnection; its results have a batch id,
    and no states."""

    default_config = SimenvConfig(observables=[BitStrings(evaluation_times=[1.0])])

    def __init__(
        self,
        sequence: pulser.Sequence,
        connection: RemoteConnection,
        *,
        config: EmulationConfig[Any] | None = None,
        mimic_qpu: bool = False,
    ) -> None:
        RemoteBackend.__init__(self, sequence, connection, mimic_qpu=mimic_qpu)
        EmulatorBackend.__init__(self, sequence, config=config, mimic_qpu=mimic_qpu)

    def run(self, job_params: list[JobParams] | None = None, wait: bool = False) -> RemoteResults:
        """Submit jobs, by default one, and return their results to come."""
        return super().run([JobParams()] if job_params is None else job_params, wait)

    def _submit_kwargs(self) -> dict[str, Any]:
        return {**super()._submit_kwargs(), "config": self._config}
