"""Groups of tests for several processes (`pytest -n 4`), and the order in which they begin.

A group runs in one process, in its order: fixtures of a module are made once. A group is a file,
but for the folders of TOGETHER and the files of APART. What takes long begins first, so that
nothing long is left at the end when the other processes have nothing to do.
"""

import zlib
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# `make test` leaves these out, `make drills` runs them; but what `make test` runs all the same.
# Drills mostly wait. Programs of users use the cores meanwhile: the documentation's snippets, the
# examples, clients of IBM, IQM and Pasqal, PennyLane's suite, a browser at each width.
DRILLS = (
    "tests/cluster/",
    "tests/documentation/test_site.py",
    "tests/e2e/test_benchmarks.py",
    "tests/e2e/test_docs.py",
    "tests/e2e/test_gateway_ibm.py",
    "tests/e2e/test_gateway_iqm.py",
    "tests/e2e/test_gateway_pasqal.py",
    "tests/e2e/test_hostile_client.py",
    "tests/e2e/test_identity_guide.py",
    "tests/e2e/test_qpm_docs.py",
    "tests/e2e/test_qpi.py::test_c_example",
    "tests/e2e/test_qpi.py::test_command_builds",
    "tests/e2e/test_qpi.py::test_fortran_example",
    "tests/e2e/test_second_user.py",
    "tests/e2e/test_service_memory.py",
    "tests/e2e/test_shared_circuits.py",
    "tests/e2e/test_site_users.py",
    "tests/examples/",
    "tests/faults/",
    "tests/launcher/mpi/test_mpirun.py",
    "tests/simenv/cli/test_command_examples.py::test_examples_succeed_in_an_empty_folder",
    "tests/simenv/frontends/pennylane/test_device_suite.py",
    "tests/simenv/gateway/page/test_page.py::test_view_has_no_fault_at_any_width_and_colour_scheme",
    "tests/simenv/qpm_check/test_broken.py",
    "tests/simenv/qpm_check/test_reference.py",
    "tests/simulators/compiler/test_folder.py::test_second_user_starts_an_environment",
    "tests/simulators/gpu/test_ranks.py::test_case_over_devices_passes_on_each_rank[4",
    "tests/simulators/statevector/distributed/test_distributed.py"
    "::test_distributed_case_passes_on_each_rank[4",
    "tests/simulators/statevector/distributed/test_distributed.py"
    "::test_distributed_case_passes_on_each_rank[8",
    "tests/simulators/test_ranks.py::test_case_passes_on_each_rank[tensornetwork/contraction-4",
)
SMOKE = (
    "tests/documentation/test_site.py::test_configuration_reference_has_each_variable_of_code",
    "tests/e2e/test_docs.py::test_blocks_of_a_page_run_in_an_empty_folder[README.md]",
    "tests/e2e/test_docs.py::test_blocks_of_a_page_run_in_an_empty_folder[docs/start/student.md]",
    "tests/e2e/test_gateway_ibm.py::test_a_program_of_ibms_client_runs_unchanged",
    "tests/e2e/test_gateway_iqm.py::test_a_program_of_iqms_client_runs_unchanged",
    "tests/e2e/test_gateway_pasqal.py::test_qrmi_runs_a_sequence_from_acquire_to_target",
    "tests/examples/test_examples.py::test_the_laptop_example_does_not_run",
    "tests/cluster/test_plain.py::test_remote_worker_has_its_folder_and_environment",
    "tests/simenv/cli/test_command_examples.py::test_examples_succeed_in_an_empty_folder[run]",
    "tests/simenv/gateway/page/test_page.py"
    "::test_view_has_no_fault_at_any_width_and_colour_scheme[overview]",
    "tests/faults/test_worker_killed.py::test_task_that_kills_its_workers_fails_as_poison"
    "_and_others_complete",
)
# `make slow` runs these, neither of the others: each took half a minute or more of two quiet cores,
# and a test that stays looks at the same code.
SLOW = (
    "tests/bad_input/test_policy_values.py"
    "::test_extreme_policies_are_refused_or_applied_and_others_are_served[1",
    "tests/bad_input/test_hostile_sequences.py",
    "tests/bench/test_emulators.py::test_iqm_has_the_depolarizing_and_readout_errors",
    "tests/e2e/test_atom_devices.py::test_t1_of_the_snapshot_acts_while_atoms_wait",
    "tests/simenv/calibration/test_certified_terms.py"
    "::test_leakage_of_pairs_and_half_turns_is_recovered[ecr",
    "tests/simenv/calibration/test_certify.py::test_coherent_angles_resets_and_durations",
    "tests/simenv/calibration/test_certify.py::test_decays_by_a_layer_are_certified",
    "tests/simenv/calibration/test_certify.py::test_leakage_and_seepage_of_gates",
    "tests/simenv/calibration/test_certify.py::test_memory_errors_of_ions",
    "tests/simenv/calibration/test_certify.py::test_rotations_of_gates_and_joint_flips",
    "tests/simenv/calibration/test_day_values.py"
    "::test_a_series_is_used_where_shots_alone_do_not_explain_it[False",
    "tests/simenv/calibration/test_fit.py::test_gates_that_are_calibrated_for_all_qubits_at_once",
    "tests/simenv/calibration/test_guards.py::test_a_device_that_is_old_or_better",
    "tests/simenv/calibration/test_guards.py::test_fit_that_lacks_much_to_its_ceiling",
    "tests/simenv/calibration/test_guards.py::test_garbage_is_not_stored[0.",
    "tests/simenv/calibration/test_guards.py::test_order_of_the_bits_of_wide_circuits",
    "tests/simenv/calibration/test_guards.py::test_qubits_numbered_from_the_other_end",
    "tests/simenv/calibration/test_guards.py::test_wrong_counts_are_fitted_by_force_alone",
    "tests/simenv/calibration/test_identify.py::test_drift_from_circuit_to_circuit",
    "tests/simenv/calibration/test_model_terms.py::test_a_device_with_detunings_is_fitted",
    "tests/simenv/calibration/test_model_terms.py::test_the_factor_of_zz_rates_is_found",
    "tests/simenv/calibration/test_pairs.py::test_no_joint_flips_are_stored_for_a_device_without_them[1",
    "tests/simenv/calibration/test_pairs.py::test_records_that_are_flipped_together",
    "tests/simenv/calibration/test_probes.py::test_a_fit_that_circuits_left_out",
    "tests/simenv/calibration/test_probes.py::test_suggested_counts_of_the_calibrated_device",
    "tests/simenv/calibration/test_unresolved.py::test_a_readout_error_of_40_percent",
    "tests/simenv/calibration/test_unresolved.py::test_relaxation_in_the_half_turn",
    "tests/simenv/sandbox/test_tree_memory.py::test_sample_stands_for_many_processes",
    "tests/simulators/gpu/test_compile.py::test_kernels_touch_no_memory_outside",
    "tests/simulators/statevector/distributed/test_distributed.py"
    "::test_distributed_case_passes_on_each_rank[3-",
    "tests/simulators/tensornetwork/sweep/test_dynamic.py::test_many_operators_drawn",
    "tests/simulators/test_ranks.py::test_case_passes_on_each_rank[tensornetwork/mps-3",
)
# Of these and of the drills each run of continuous integration has a third, chosen by its commit.
# `make test SHARD=all` has all of them. `scripts/long_tests.py` writes the list.
LONG_TESTS = frozenset(Path(__file__).with_name("long_tests.txt").read_text().splitlines())
SHARDS = 3
# The first use what a machine has once, or so much of it that two of them would be in each other's
# way. The second share the syntax trees of all modules, the last what engines compile for
# themselves in each process (quimb).
TOGETHER = ("tests/cluster/", "tests/project_rules/", "tests/conformance/")
# Files whose tests share nothing but functions: PARTS groups of each.
APART = (
    "tests/e2e/test_docs.py", "tests/e2e/test_life.py", "tests/e2e/test_qpm_docs.py",
    "tests/simenv/cli/test_command_examples.py",
    "tests/simenv/frontends/pennylane/test_device_suite.py",
    "tests/simenv/qpm_check/test_broken.py", "tests/simenv/qpm_check/test_reference.py",
)  # fmt: skip
PARTS = 4
# What takes long on two quiet cores, the longest first.
LONG = (
    "tests/cluster/",  # minutes: deaths that somebody must notice
    "tests/conformance/",
    "tests/e2e/test_docs.py",
    "tests/simenv/gateway/page/test_page.py",
    "tests/simenv/cli/test_command_examples.py",
    "tests/simenv/qpm_check/test_broken.py",
    "tests/e2e/test_second_user.py",
    "tests/faults/test_launchers_killed.py",
    "tests/faults/test_service_killed.py",
    "tests/faults/test_long_run_killed.py",
    "tests/simulators/statevector/distributed/test_distributed.py",
    "tests/simenv/qpm_check/test_reference.py",
    "tests/e2e/test_qpm_docs.py",
    "tests/faults/test_qpi_service_killed.py",
    "tests/e2e/test_hostile_client.py",
    "tests/e2e/test_hardware.py",
    "tests/faults/test_worker_killed.py",
    "tests/faults/test_results_broken.py",
    "tests/project_rules/",
    "tests/faults/test_engines_killed.py",
    "tests/e2e/test_first_start.py",
    "tests/simulators/compiler/test_folder.py",
    "tests/e2e/test_service_memory.py",
    "tests/e2e/test_gateway_ibm.py",
    "tests/e2e/test_life.py",
    "tests/simenv/frontends/pennylane/test_device_suite.py",
    "tests/e2e/test_drifting_devices.py",
    "tests/simenv/worker/ranks/test_ranks.py",
    "tests/e2e/test_shared_circuits.py",
    "tests/faults/test_reservations_killed.py",
    "tests/faults/test_batches_killed.py",
    "tests/examples/test_examples.py",
    "tests/e2e/test_benchmarks.py",
    "tests/examples/test_workflows.py",
    "tests/simulators/tensornetwork/contraction/test_contraction.py",
    "tests/simenv/calibration/test_model_terms.py",
    "tests/simulators/gpu/test_ranks.py",
    "tests/e2e/test_qpi.py",
    "tests/e2e/test_same_counts.py",
    "tests/simenv/cli/tasks/test_simulate.py",
    "tests/simenv/client/circuits/test_hostile_text.py",
    "tests/simulators/test_ranks.py",
    "tests/e2e/test_gateway.py",
    "tests/e2e/test_gateway_accounts.py",
    "tests/e2e/test_functions.py",
    "tests/e2e/test_isolated_accounts.py",
    "tests/e2e/test_account_users.py",
    "tests/launcher/prte/test_launcher_with_fake_prte.py",
    "tests/simenv/client/environments/test_named.py",
    "tests/simenv/worker/test_lease.py",
    "tests/e2e/test_transpiling.py",
    "tests/documentation/test_site.py",
    "tests/simulators/statevector/test_parts.py",
    "tests/simulators/statevector/trajectories/test_sampler.py",
    "tests/simenv/calibration/test_fit.py",
    "tests/e2e/test_far.py",
    "tests/simenv/frontends/pennylane/test_device.py",
    "tests/examples/test_my_qpu.py",
)


def is_slow(nodeid: str) -> bool:
    """Does `make slow` alone run this test?"""
    return nodeid.startswith(SLOW)


def is_drill(nodeid: str) -> bool:
    return nodeid.startswith(DRILLS) and nodeid not in SMOKE


def of_other_shard(nodeid: str, shard: int) -> bool:
    """Is it a test that takes turns, and another shard's?"""
    if nodeid in SMOKE or not (is_drill(nodeid) or nodeid in LONG_TESTS):
        return False
    return zlib.crc32(nodeid.encode()) % SHARDS != shard % SHARDS


def may_have_drills(file: str) -> bool:
    return any(f"{file}::".startswith(drill.partition("::")[0]) for drill in DRILLS)


def file_of(nodeid: str) -> str:
    """The file of a test, or its folder of TOGETHER."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def group_of(nodeid: str) -> str:
    file = file_of(nodeid)
    return f"{file} {zlib.crc32(nodeid.encode()) % PARTS}" if file in APART else file


def rank_of(nodeid: str) -> int:
    file = file_of(nodeid)
    return LONG.index(file) if file in LONG else len(LONG)


class Spread(LoadScopeScheduling):  # type: ignore[misc]
    """Hands groups out, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a process its next group when it begins the last test of its present one, not one
        test earlier: the group would wait behind both."""
        if node.shutting_down or self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


class AtOnce:
    """Shows what fails when it does: a run that is cut off has told it."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal = config.pluginmanager.get_plugin("terminalreporter")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\n{report.nodeid} failed ({report.when}):")
            self._terminal.write_line(report.longreprtext)
