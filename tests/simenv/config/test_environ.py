"""Environment variables, launched processes, and folders of kernels that others can write."""

import argparse
import importlib.util
from pathlib import Path

import pytest
from failing import fails
from interpreter import python

from simenv import config
from simenv.cli.app import run
from simenv.client import launch
from simenv.config import convert, paths
from simenv.errors import ConfigError
from simenv.service.bootstrap import build_service
from simenv.worker import main
from simulators.compiler import folder, warmup

MPI_WAIT_S = 120.0
SITE = {"OMPI_MCA_btl": "self,sm,tcp", "OMPI_MCA_pml": "ob1", "PRTE_MCA_x": "1", "UCX_TLS": "tcp"}
RANK = {  # what mpirun and prte write into the environment of a rank
    "PMIX_RANK": "1",
    "PMIX_NAMESPACE": "prterun-node1-17@1",
    "PMIX_SERVER_URI41": "prterun-node1-17@0.0;tcp4://127.0.0.1:1",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_MCA_ess": "pmi",
    "PRTE_LAUNCHED": "1",
}
JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CONF": "/etc/slurm.conf"}
STEP = {
    "SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "2", "SLURM_SRUN_COMM_PORT": "40001", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
}  # fmt: skip


def inherited(**environ: str) -> dict[str, str]:
    return dict(paths.worker_environ(environ))


@pytest.mark.parametrize(
    "name",
    [
        *("MPICH_ASYNC_PROGRESS", "I_MPI_FABRICS", "OPAL_PREFIX", "OMPI_MCA_btl", "UCX_TLS"),
        *("FI_PROVIDER", "MPI4PY_RC_THREADS", "OMP_NUM_THREADS", "PBS_JOBID", "LD_LIBRARY_PATH"),
        *("PRTE_MCA_x", "OMPI_MCA_pml"),
    ],
)
def test_setting_reaches_a_worker_from_the_shell_that_started_the_service(name: str) -> None:
    assert inherited(**launch.environment({name: "1"}))[name] == "1"


def test_worker_gets_variables_of_service_but_no_ranks_or_secrets() -> None:
    assert paths.WORKER_NAMES < paths.SERVICE_NAMES
    assert set(paths.WORKER_PREFIXES) < set(paths.SERVICE_PREFIXES)
    result = inherited(**RANK, **SITE)
    assert not [name for name in result if name.startswith(("OMPI_", "PMIX_", "PRTE_"))]
    assert result["UCX_TLS"] == "tcp"
    result = inherited(PMI_RANK="1", PMI_SIZE="2", PMI_FD="9", OMPI_MCA_pmix="^s1")
    assert not [name for name in result if name.startswith(("PMI_", "OMPI_"))]
    assert not {"SLURM_JWT", "PBS_JOBCOOKIE"} & set(inherited(SLURM_JWT="x", PBS_JOBCOOKIE="y"))
    result = inherited(AWS_SECRET_ACCESS_KEY="s", LD_PRELOAD="/x.so", PYTHONPATH="/x", PATH="/bin")
    assert set(result) == {"PATH", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"}


def test_worker_gets_slurm_job_and_wait_policy() -> None:
    assert {name for name in inherited(**JOB, **STEP) if name.startswith("SLURM_")} == set(JOB)
    assert inherited()["OMP_WAIT_POLICY"] == "PASSIVE"
    assert inherited(OMP_WAIT_POLICY="ACTIVE")["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed")
def test_mpi_starts_as_singleton_in_worker_environment_of_service_rank(tmp_path: Path) -> None:
    environ = inherited(**RANK, **JOB, **STEP, PATH="/usr/bin:/bin", HOME=str(tmp_path))
    script = "from mpi4py import MPI; print('size', MPI.COMM_WORLD.size)"
    environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    process = python("-c", script, env=environ, timeout=MPI_WAIT_S, check=False)
    if "cannot load MPI library" in process.stderr:
        pytest.skip("there is no MPI library here")
    assert process.stdout == "size 1\n", process.stderr


NAME = "kept"


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ("512MiB", 2**29), ("512M", 2**29), ("2 GB", 2**31), ("1.5g", 3 * 2**29), ("4096", 4096),
        ("64KiB", 2**16), ("1T", 2**40), (12, 12), (0, 0),
    ],
)  # fmt: skip
def test_sizes_with_units_are_read_in_bytes(told: object, count: int) -> None:
    assert config.size(told, "x") == count


@pytest.mark.parametrize(
    "told", ["", "MiB", "-1", "1e9", "12 parsecs", "5 5", "9999999T", -1, True, 0.5, None]
)
def test_invalid_size_is_refused(told: object) -> None:
    fails(ConfigError, "x = ", config.size, told, "x")


def test_sizes_with_units_are_read_from_config_file(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text('memory_per_slot = "512MiB"\nmemory_bytes = "3GiB"\n')
    document = config.load({"name": NAME}, file, {"SIMENV_HOME": str(tmp_path)})
    assert (document.memory_per_slot, document.memory_bytes) == (2**29, 3 * 2**30)


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        ({"launcher": "prt"}, "launcher 'prt' is not known", "did you mean `prte`?"),
        ({"launcher": {"use": "slurm"}}, "launcher 'slurm'", "known: auto, prte, mpirun, local"),
        ({"launcher": {"nodes_per_dvm": -1}}, "nodes_per_dvm = -1 is outside", ""),
        ({"launcher": {"agent": "a\nb"}}, r"launcher.agent = 'a\\nb' is not one line", ""),
        ({"launcher": {"agnt": "x"}}, "agnt", ""),
        ({"hosts": "a:2", "hostfile": "/h"}, "hosts cannot be combined with hostfile", ""),
        ({"hosts": "a:2;b"}, "hosts = 'a:2;b' is not a list", "node1:2,node2:2"),
        ({"hosts": "-o:2"}, "hosts = '-o:2' is not a list", ""),
        ({"memory_per_slot": 1}, "memory_per_slot = 1 is less", "a size such as 512MiB"),
        ({"memory_per_slot": "lots"}, "memory_per_slot = 'lots' is not a size", ""),
    ],
)
def test_bad_launch_settings_have_hint(values: dict[str, object], said: str, hint: str) -> None:
    assert fails(ConfigError, said, config.convert, values).hint.startswith(hint)


@pytest.mark.parametrize("hosts", ["a", "node1:2,node2:2", "gpu[07-08,11]:4,login.site", "_x:1"])
def test_valid_host_lists_are_accepted(hosts: str) -> None:
    assert config.convert({"hosts": hosts}).hosts == hosts


def test_launcher_option_keeps_other_launcher_settings_of_config_file(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text('hosts = "a:1"\n[launcher]\nuse = "prte"\nnodes_per_dvm = 4\n')
    environ = {"SIMENV_HOME": str(tmp_path)}
    document = config.load({"name": NAME, "launcher": "mpirun"}, file, environ)
    assert document.launcher == config.Launching("mpirun", nodes_per_dvm=4)


def test_hosts_of_last_start_are_used_unless_hosts_or_hostfile_are_given(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    config.write(config.Config(name=NAME, hosts="a:2,b:2"), folder / "config.json")
    (folder / "journal.db").touch()
    environ = {"SIMENV_HOME": str(tmp_path)}
    assert config.load({"name": NAME}, environ=environ).hosts == "a:2,b:2"
    document = config.load({"name": NAME, "hostfile": "/h"}, environ=environ)
    assert (document.hosts, document.hostfile) == ("", "/h")
    assert config.load({"name": NAME, "hosts": ""}, environ=environ).hosts == ""


def test_relative_paths_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    file = tmp_path / "site" / "simenv.toml"
    tls = 'tls_certificate = "a.pem"\ntls_key = "/etc/a.key"\n'
    file.write_text(f'hostfile = "hosts"\nstate_dir = "state"\n[gateway]\n{tls}')
    monkeypatch.chdir(tmp_path)
    environ = {"SIMENV_HOME": str(tmp_path)}
    found = config.load({"name": NAME}, file, environ)
    assert found.hostfile == str(tmp_path / "site" / "hosts")
    assert found.state_dir == str(tmp_path / "site" / "state")
    assert found.gateway.tls_certificate == str(tmp_path / "site" / "a.pem")
    assert found.gateway.tls_key == "/etc/a.key"
    table = {"name": NAME, "hostfile": Path("mine"), "state_dir": "own"}
    found = config.load(table, environ=environ)
    assert (found.hostfile, found.state_dir) == (str(tmp_path / "mine"), str(tmp_path / "own"))


def test_launch_agent_of_environment_variable_overrides_config_file() -> None:
    settings = config.convert({"launcher": {"agent": "/file"}})
    assert config.launch_agent(settings, {}) == "/file"
    assert config.launch_agent(settings, {"SIMENV_LAUNCH_AGENT": "/here"}) == "/here"
    assert config.launch_agent(config.Config(), {}) == ""


BELL = "OPENQASM 2.0;\ninclude 'qelib1.inc';\nqreg q[1];\ncreg c[1];\nh q[0];\nmeasure q -> c;\n"
REFUSED = "can be written by others"


@pytest.fixture
def loose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of kernels as an earlier version made it under umask 002."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o775)
    monkeypatch.setenv("SIMENV_KERNELS", str(folder))
    return folder


def test_service_refuses_kernel_folder_writable_by_others(tmp_path: Path, loose: Path) -> None:
    environ = {"SIMENV_HOME": str(tmp_path / "home"), "SIMENV_KERNELS": str(loose)}
    result = convert({"memory_bytes": 2**20, "launcher": {"use": "local"}})
    fails(ConfigError, REFUSED, build_service, result, tmp_path / "home" / "default", environ)


def test_worker_refuses_kernel_folder_writable_by_others(loose: Path) -> None:
    namespace = argparse.Namespace(kernels=loose, engine="any", ranks=1, import_from="")
    fails(ConfigError, REFUSED, main._load, namespace, None)


@pytest.mark.parametrize("words", [["simulate"], ["explain", "--plan"]])
def test_command_refuses_kernel_folder_writable_by_others(
    tmp_path: Path, loose: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    circuit = tmp_path / "bell.qasm"
    circuit.write_text(BELL)
    assert run([words[0], str(circuit), *words[1:]]) == ConfigError.exit_code
    assert REFUSED in capsys.readouterr().err


def test_prepared_kernel_folder_is_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_chosen", [tmp_path])
    result = warmup.prepare(tmp_path / "kernels")
    assert result.stat().st_mode & 0o077 == result.parent.stat().st_mode & 0o077 == 0
