"""Which tests several processes (`pytest -n 3`) may run side by side, and which begin first.

A group runs in one process, in its order: fixtures of a module are made once. A group is a file,
but for the folders of TOGETHER. What takes long begins first, so that nothing long is left at the
end when the other processes have nothing to do.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

# The first use what a machine has once, or so much of it that two of them would be in each other's
# way. The others share the syntax trees of all modules.
TOGETHER = ("tests/cluster/", "tests/project_rules/")
# What takes long on two quiet cores, the longest first.
LONG = (
    "tests/cluster/",  # minutes: deaths that somebody must notice
    "tests/e2e/test_docs.py",
    "tests/e2e/test_qpm_check.py",
    "tests/faults/test_worker_killed.py",
    "tests/faults/test_service_killed.py",
    "tests/faults/test_results_broken.py",
    "tests/e2e/test_life.py",
    "tests/examples/test_examples.py",
    "tests/simenv/qpm_check/test_honest.py",
    "tests/e2e/test_hardware.py",
    "tests/faults/test_launchers_killed.py",
    "tests/e2e/test_own_door.py",
    "tests/e2e/test_second_user.py",
    "tests/e2e/test_hostile_client.py",
    "tests/e2e/test_functions.py",
    "tests/e2e/test_transpiling.py",
    "tests/e2e/test_far_life.py",
    "tests/e2e/test_shared_circuits.py",
    "tests/e2e/test_languages.py",
    "tests/simulators/statevector/distributed/test_distributed.py",
    "tests/simenv/worker/ranks/test_ranks.py",
    "tests/simenv/cli/tasks/test_simulate.py",
    "tests/simenv/cli/observe/test_history.py",
    "tests/examples/test_my_qpu.py",
    "tests/simenv/cli/test_qpm_diff.py",
    "tests/simenv/cli/environment/test_status.py",
    "tests/launcher/mpi/test_mpirun.py",
    "tests/project_rules/test_imports.py",
    "tests/simenv/client/circuits/test_hostile_text.py",
    "tests/simenv/client/environments/test_named.py",
    "tests/compatibility/test_counts.py",
    "tests/compatibility/test_listings.py",
    "tests/simenv/cli/environment/test_run.py",
    "tests/simulators/fault/test_fault.py",
)


def group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def rank_of(nodeid: str) -> int:
    group = group_of(nodeid)
    return LONG.index(group) if group in LONG else len(LONG)


class Spread(LoadScopeScheduling):  # type: ignore[misc]
    """Hands groups out, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


class AtOnce:
    """Shows what fails when it does: a run that is cut off has told it."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal = config.pluginmanager.get_plugin("terminalreporter")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\n{report.nodeid} failed ({report.when}):")
            self._terminal.write_line(report.longreprtext)
