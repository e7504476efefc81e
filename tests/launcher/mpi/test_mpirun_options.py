"""What each mpirun is told: whole command lines, without any MPI."""

from pathlib import Path

import pytest

from launcher import mpirun
from launcher.base import Command, Share
from launcher.mpirun import MpiFamily, Mpirun

FOLDER = Path("/run/simenv/launcher")
HERE = (Share("here", 2),)
APART = (Share("away", 1), Share("here.site.org", 2), Share("far", 1))
BASH_FUNCTION = ("BASH_FUNC_module%%", "() { :; }")


def told(
    kind: MpiFamily, shares: tuple[Share, ...], *more: tuple[str, str], isolated: bool = False
) -> list[str]:
    """The words after the program."""
    command = Command(
        "w", ("python", "-m", "w"), (("PATH", "/bin"), *more), FOLDER / "log", FOLDER, 1, shares
    )
    program = Mpirun("/opt/bin/mpirun", kind, "1.2.3")
    first, *value = mpirun.command_line(
        program, command, "here", FOLDER, "/run/agent", isolated=isolated
    )
    assert first == "/opt/bin/mpirun"
    return value


def test_open_mpi_5_command_line() -> None:
    head = (
        f"--prtemca ras {mpirun.SITES} --prtemca prte_local_tmpdir_base {FOLDER} "
        "--map-by slot:OVERSUBSCRIBE --bind-to none -n 2"
    )
    assert told(MpiFamily.OPEN_MPI_5, HERE) == [*head.split(), "python", "-m", "w"]


def test_open_mpi_4_command_line() -> None:
    head = told(MpiFamily.OPEN_MPI_4, HERE)[2:6]
    assert head == [mpirun.SITES, "--mca", "orte_tmpdir_base", str(FOLDER)]


@pytest.mark.parametrize(
    ("family", "mca", "rsh", "head", "oversubscribe"),
    [
        (MpiFamily.OPEN_MPI_5, "--prtemca", "ssh",
         f"--prtemca ras {mpirun.SITES} --prtemca prte_local_tmpdir_base {FOLDER}",
         "--map-by slot:OVERSUBSCRIBE"),
        (MpiFamily.OPEN_MPI_4, "--mca", "rsh", f"--mca ras {mpirun.SITES}", "--oversubscribe"),
    ],
)  # fmt: skip
def test_open_mpi_command_line_places_ranks_by_shares(
    family: MpiFamily, mca: str, rsh: str, head: str, oversubscribe: str
) -> None:
    assert " ".join(told(family, APART, BASH_FUNCTION)) == (
        f"{head} {mca} plm {rsh} {mca} plm_{rsh}_agent /run/agent {mca} oob_tcp_keepalive_time 5 "
        f"{mca} oob_tcp_keepalive_intvl 1 {mca} oob_tcp_keepalive_probes 3 "
        f"{oversubscribe} --bind-to none --host away:1 -n 1 -x PATH python -m w : "
        "--host here.site.org:2 -n 2 -x PATH python -m w : --host far:1 -n 1 -x PATH python -m w"
    )


def test_mpich_command_line() -> None:
    tail = "-bind-to none -n {} python -m w"
    assert " ".join(told(MpiFamily.MPICH, HERE)) == (
        f"-launcher fork -hosts here:2 -genvall {tail.format(2)}"
    )
    assert " ".join(told(MpiFamily.MPICH, APART)) == (
        "-launcher rsh -launcher-exec /run/agent -hosts away:1,here.site.org:2,far:1 -genvall "
        + tail.format(4)
    )


def test_intel_mpi_command_line() -> None:
    assert " ".join(told(MpiFamily.INTEL, HERE)) == (
        "-bootstrap fork -hosts here:2 -genvall -n 2 python -m w"
    )


def test_worker_without_shares_runs_on_this_machine() -> None:
    assert "--host" not in told(MpiFamily.OPEN_MPI_5, ())
    assert " ".join(told(MpiFamily.MPICH, ())[2:4]) == "-hosts here:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mpirun (Open MPI) 5.0.11\n\nReport bugs to", (MpiFamily.OPEN_MPI_5, "5.0.11")),
        ("mpiexec (Open MPI) 6.0.0rc1", (MpiFamily.OPEN_MPI_5, "6.0.0rc1")),
        ("mpirun (Open MPI) 4.1.4\n", (MpiFamily.OPEN_MPI_4, "4.1.4")),
        ("mpirun.openmpi (OpenRTE) 4.1.4\n", (MpiFamily.OPEN_MPI_4, "4.1.4")),
        ("mpirun (Open MPI) 3.1.6\n", None),
        ("HYDRA build details:\n    Version:                                 4.0.2\n",
         (MpiFamily.MPICH, "4.0.2")),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.8 Build 20221129\nCopyright",
         (MpiFamily.INTEL, "2021.8")),
        ("slurm 22.05.8", None),
        ("", None),
    ],
)  # fmt: skip
def test_mpirun_is_known_by_version(text: str, expected: tuple[MpiFamily, str] | None) -> None:
    assert mpirun.parse_version(text) == expected


def environment(kind: MpiFamily, **more: str) -> dict[str, str]:
    program = Mpirun("/opt/bin/mpirun", kind, "1", more.pop("prefix", ""))
    root, fabric = bool(more.pop("root", "")), bool(more.pop("fabric", ""))
    return mpirun.environment(program, more, root, fabric, remote=bool(more.pop("remote", "")))


def test_open_mpi_ranks_yield_when_idle_unless_user_overrides_it() -> None:
    for kind in (MpiFamily.OPEN_MPI_4, MpiFamily.OPEN_MPI_5):
        assert environment(kind, fabric="yes")["OMPI_MCA_mpi_yield_when_idle"] == "1"
    result = environment(MpiFamily.OPEN_MPI_5, OMPI_MCA_mpi_yield_when_idle="0")
    assert result["OMPI_MCA_mpi_yield_when_idle"] == "0", "what a user says counts"


def test_transports_are_limited_where_there_is_no_fabric() -> None:
    assert environment(MpiFamily.OPEN_MPI_5, remote="yes")["OMPI_MCA_btl"] == "self,sm,tcp"
    assert environment(MpiFamily.OPEN_MPI_4, remote="yes")["OMPI_MCA_btl"] == "self,vader,tcp"
    assert "OMPI_MCA_btl" not in environment(MpiFamily.OPEN_MPI_5, fabric="yes")
    assert environment(MpiFamily.OPEN_MPI_5, OMPI_MCA_pml="ucx")["OMPI_MCA_pml"] == "ucx"
    assert environment(MpiFamily.MPICH) == {}


def test_ranks_of_one_node_listen_on_no_port() -> None:
    assert environment(MpiFamily.OPEN_MPI_5)["OMPI_MCA_btl"] == "self,sm"
    assert environment(MpiFamily.OPEN_MPI_4)["OMPI_MCA_btl"] == "self,vader"
    assert environment(MpiFamily.OPEN_MPI_5, OMPI_MCA_btl="self,tcp")["OMPI_MCA_btl"] == "self,tcp"


def test_isolated_hydra_uses_the_loopback_interface() -> None:
    for kind in (MpiFamily.MPICH, MpiFamily.INTEL):
        assert "-iface lo" in " ".join(told(kind, HERE, isolated=True))
        assert "-iface" not in told(kind, HERE)


def test_root_and_prefix_are_set_in_the_environment() -> None:
    result = environment(MpiFamily.OPEN_MPI_4, root="yes", prefix="/venv", OPAL_PREFIX="/another")
    assert result["OMPI_ALLOW_RUN_AS_ROOT"] == result["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert result["OPAL_PREFIX"] == result["PRTE_PREFIX"] == "/venv"
    result = environment(MpiFamily.OPEN_MPI_4, OPAL_PREFIX="/site")
    assert result["OPAL_PREFIX"] == "/site"
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in result


def test_variables_of_an_outer_mpi_job_do_not_reach_ranks() -> None:
    around = {"PMI_RANK": "3", "PMIX_NAMESPACE": "x", "OMPI_COMM_WORLD_SIZE": "4", "HYDI_X": "1"}
    table = {"PMIX_MCA_gds": "hash", "SLURM_JOB_ID": "17", "PATH": "/bin"}
    assert environment(MpiFamily.MPICH, **around, **table) == table
