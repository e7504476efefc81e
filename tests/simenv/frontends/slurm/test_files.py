"""What `simenv slurm` writes, and what it reads of Slurm; the rest runs in tests/cluster."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from failing import fails
from msgspec.structs import replace

from simenv.errors import (
    ConfigError,
    NoServiceError,
    NotFoundError,
    OptionError,
    SimenvError,
    SlurmAwayError,
    SlurmError,
    TimedOutError,
)
from simenv.frontends import slurm
from simenv.frontends.slurm import SlurmSite, jobs, licenses
from simenv.frontends.slurm.jobs import DeviceShare
from simenv.model import NodeInfo, PoolInfo, ReservationInfo

SITE = SlurmSite("munge:sim@node1:7481/site", "big", gateway="https://node1:8443")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name in ("plugin.so", "simenv"):
        (tmp_path / name).touch()
    folder = tmp_path / "slurm"
    folder.mkdir()
    return folder


def install(conf: Path, site: SlurmSite = SITE) -> slurm.Installation:
    return slurm.install(conf.parent / "plugin.so", conf, site, conf.parent / "simenv")


def test_install_keeps_what_the_site_has_and_its_own_line_once(conf: Path) -> None:
    plugstack, submit = conf / "plugstack.conf", conf / "job_submit.lua"
    plugstack.write_text("optional /opt/other.so  # of the site\n")
    submit.write_text("-- of the site\n")
    licences = conf / "simenv" / "simenv_licenses.conf"
    install(conf)
    licences.write_text("Licenses=matlab:5\n")
    done = install(conf, SlurmSite("munge:sim@node2:7481/site", "big"))
    lines = plugstack.read_text().splitlines()
    assert lines[0] == "optional /opt/other.so  # of the site"
    (own,) = lines[1:]
    assert own.startswith(f"required {conf.parent}/plugin.so simenv={conf.parent}/simenv service=")
    assert "node2" in own
    assert "gateway" not in own
    assert submit.read_text() == "-- of the site\n"
    assert licences.read_text() == "Licenses=matlab:5\n"
    assert submit not in done.files
    for name in ("simenv_prolog.sh", "simenv_epilog.sh"):
        assert stat.S_IMODE((conf / name).stat().st_mode) == 0o755
    assert len(done.slurm_conf) == 4


def test_name_of_the_option_and_authority_are_arguments_of_the_plugin(conf: Path) -> None:
    install(conf)
    assert "option=" not in (conf / "plugstack.conf").read_text()
    install(conf, replace(SITE, option="simenv-qpu", ca="/etc/ssl/site.pem"))
    (line,) = (conf / "plugstack.conf").read_text().splitlines()
    assert " option=simenv-qpu" in line
    assert " ca=/etc/ssl/site.pem" in line
    for name in ("", "Qpu", "1qpu", "-qpu", "q_pu", "qpu=x", "q" * 32):
        fails(ConfigError, "no name of an option", install, conf, replace(SITE, option=name))


def test_plugstack_is_the_one_that_slurm_conf_names(conf: Path) -> None:
    elsewhere = conf.parent / "stack.conf"
    (conf / "slurm.conf").write_text("# ClusterName=old\nclustername = Big\ninclude more.conf\n")
    (conf / "more.conf").write_text(f"PlugStackConfig={elsewhere}\ninclude slurm.conf\n")
    assert install(conf).files[0] == elsewhere
    assert "plugin.so" in elsewhere.read_text()
    assert not (conf / "plugstack.conf").exists()
    assert slurm.conf_value(conf, "ClusterName") == "Big"
    assert slurm.conf_value(conf, "SlurmUser") == ""


def test_values_that_configuration_files_cannot_have_are_refused(conf: Path) -> None:
    for value in ("a b", "a#b", "a'b", "a\nb"):
        fails(ConfigError, "a space, a quote or a #", install, conf, SlurmSite(value, "big"))
        fails(ConfigError, "a space, a quote or a #", install, conf, SlurmSite("local:sim", value))
    conf.rmdir()
    fails(NotFoundError, "there is no folder", install, conf)
    (conf.parent / "plugin.so").unlink()
    fails(NotFoundError, "plugin.so", install, conf)


def test_submit_filter_names_the_option_of_the_site(conf: Path) -> None:
    for option in ("qpu", "simenv-qpu"):
        install(conf, SlurmSite("munge:sim@node1:7481/site", "big", option=option))
        lines = (conf / "simenv_job_submit.lua").read_text().splitlines()
        (line,) = [each for each in lines if each.startswith("local OPTION = ")]
        assert line.startswith(f'local OPTION = "{option}"')


def test_sync_has_a_folder_and_a_unit_of_slurm_user(conf: Path) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    (conf / "slurm.conf").write_text(f"# SlurmUser=x\nClusterName=big\n slurmuser = {user} # own\n")
    site = SlurmSite(
        "munge:sim@node1:7481/a%b", "big", munge="/run/m.socket", admin="/srv/adm.json"
    )
    done = install(conf, site)
    assert (conf / "simenv").owner() == user
    assert f"include {conf}/simenv/simenv_licenses.conf" in done.slurm_conf
    unit = conf / "simenv_sync.service"
    assert unit in done.files
    lines = unit.read_text().splitlines()
    command = f"{conf.parent}/simenv slurm sync --every 2 --conf {conf} --cluster big"
    wanted = {f"User={user}", f"ExecStart={command}", f"ReadWritePaths={conf}/simenv"}
    wanted |= {
        f"Environment=SIMENV_SERVICE={site.admin}",
        f"Environment=SLURM_CONF={conf}/slurm.conf",
    }
    wanted.add("Environment=SIMENV_MUNGE_SOCKET=/run/m.socket")
    assert wanted <= set(lines)
    assert "Environment=SIMENV_SERVICE=munge:sim@node1:7481/a%%b" not in lines
    verify_unit(unit)
    (conf / "slurm.conf").write_text("SlurmUser=no-such-user\n")
    fails(ConfigError, "cannot be given to SlurmUser 'no-such-user'", install, conf)


def verify_unit(unit: Path) -> None:
    """Judge it as the units of tests/project_rules/test_units.py, where systemd can."""
    if shutil.which("systemd-analyze") is None:
        return
    argv = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", unit]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unrecognized option" not in done.stderr:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr


def test_files_that_cannot_be_written_name_user_and_folder(tmp_path: Path) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "none" / "x.conf", "No such file"),
        (tmp_path / "file" / "x.conf", "Not a directory"),
    ):
        error = fails(ConfigError, f"{user} cannot write {path}: {reason}", slurm.write, path, "")
        assert "SlurmUser" in error.hint
    mode = f"{stat.S_IMODE((tmp_path / 'file').stat().st_mode):04o}"
    assert f"the folder {tmp_path / 'file'} is of {user}, mode {mode}" in error.message


def test_missing_headers_are_named_with_their_package(tmp_path: Path) -> None:
    fails(ConfigError, "no C compiler", slurm.build, tmp_path, "no-such-compiler")
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho slurm/spank.h: No such file >&2\nexit 1\n")
    failing.chmod(0o755)
    error = fails(ConfigError, "spank.h: No such file", slurm.build, tmp_path, str(failing))
    assert "libslurm-dev" in error.hint
    assert not (tmp_path / slurm.PLUGIN).exists()


def test_requests_of_qpu_are_parsed() -> None:
    assert jobs.shares_of("fez") == [DeviceShare("fez", 1)]
    assert jobs.shares_of("fez_e:12,b.c-d:1") == [DeviceShare("fez_e", 12), DeviceShare("b.c-d", 1)]
    for text in ("", ":2", "a:0", "a:", "a:01", "a:5000", "a:-1", "a,", "a,a", "a b", "a:1:1", "ä"):
        fails(OptionError, "--qpu", jobs.shares_of, text)
    fails(OptionError, "the most is 8", jobs.shares_of, ",".join("abcdefghi"))
    for text in ("", "0", "-1", "1x", "12345678901"):
        fails(OptionError, "no number of a job", jobs.job_number, text)


def test_rows_of_squeue_are_read() -> None:
    job = jobs._job_of("7|RUNNING|None|1-02:03:04|ana|phys42|fez:2,matlab:1")
    assert (job.number, job.holds, job.left_s, job.user) == (7, True, 93_784.0, "ana")
    assert (job.account, job.lease_s) == ("phys42", jobs.LEASE_S)
    assert job.licenses == {"fez": 2, "matlab": 1}
    waiting = jobs._job_of("8|PENDING|Licenses|UNLIMITED|ana|(null)|(null)")
    assert (waiting.holds, waiting.left_s, waiting.licenses) == (False, None, {})
    assert (waiting.account, waiting.lease_s) == ("", jobs.LEASE_S)
    ending = jobs._job_of("9|COMPLETING|None|0:59|ana||fez")
    assert (ending.licenses, ending.lease_s) == ({"fez": 1}, 59.0 + jobs.AFTER_S)
    assert jobs._span_s("59") == 59.0
    assert jobs._span_s("INVALID") is None


def test_counts_of_other_licences_stay_and_those_of_pools_do_not_fall() -> None:
    text = "# of the site\nLicenses=matlab:5,fez:2,wide:9,old:3\n"
    present = {"fez": 4, "wide": 8, "new": 1}
    written = licenses.updated(text, present, ("fez", "old"))
    assert written.splitlines()[-1] == "Licenses=matlab:5,fez:4,wide:9,old:0,new:1"
    assert licenses.pools_of(written) == ["fez", "new", "wide"]
    again = licenses.updated(written, {"other": 1}, ("other",))
    assert licenses.pools_of(again) == ["fez", "new", "other", "wide"], "one of several daemons"
    assert licenses.pools_of(text) == []
    assert licenses.updated(written, present, ("fez", "old")) == written
    lowered = licenses.updated(written, present, ("fez", "old"), lower=True)
    assert lowered.splitlines()[-1] == "Licenses=matlab:5,fez:4,wide:8,old:0,new:1"
    for text in ("PartitionName=a\n", "Licenses=a:1\nLicenses=b:1\n"):
        fails(ConfigError, "the file of licences has the line", licenses.updated, text, {})


def test_shared_slots_go_to_waiting_jobs_first_then_evenly() -> None:
    room = {"a": 4, "b": 4, "c": 1}
    assert licenses.divided(4, room, []) == {"c": 1, "a": 1, "b": 2}
    assert licenses.divided(4, room, [{"a": 4}]) == {"a": 4, "b": 0, "c": 0}
    # The first of the queue first; what does not fit waits, and so does what is no pool's.
    queue = [{"b": 3, "matlab": 2}, {"a": 2}, {"c": 1}, {"matlab": 9}]
    assert licenses.divided(4, room, queue) == {"b": 3, "c": 1, "a": 0}
    assert licenses.divided(4, room, [{"a": 2, "b": 2}]) == {"a": 2, "b": 2, "c": 0}
    assert licenses.divided(0, room, queue) == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize(
    ("state", "closed", "available"),
    [("up", "", 2), ("degraded", "", 2), ("degraded", "paused", 0), ("quarantined", "", 0)],
)
def test_closed_pool_has_no_licences(state: str, closed: str, available: int) -> None:
    pool = PoolInfo("fez", "hardware", 2, 2, 0, 0, state, "no GPU", most=2, closed=closed)
    client: Any = SimpleNamespace(
        pools=lambda: {"fez": pool}, nodes=dict[str, NodeInfo], reservations=list[ReservationInfo]
    )
    capacity = licenses.capacities(client, "big", (), None)["fez"]
    assert (capacity.most, capacity.available) == (2, available)


def test_resources_of_qrmis_plugin_stay_in_the_lists_of_its_job() -> None:
    values = {"A": "1", "QRMI_JOB_QPU_RESOURCES": "fez,x", "QRMI_JOB_QPU_TYPES": "simenv,simenv"}
    theirs = {"QRMI_JOB_QPU_RESOURCES": "ibm,x", "QRMI_JOB_QPU_TYPES": "direct,direct"}
    for number in ("", "8"):
        assert jobs.with_qrmi(values, 7, theirs | {"QRMI_JOB_ID": number}) == values
    joined = jobs.with_qrmi(values, 7, theirs | {"QRMI_JOB_ID": "7"})
    assert joined == {
        "A": "1",
        "QRMI_JOB_QPU_RESOURCES": "ibm,x,fez",
        "QRMI_JOB_QPU_TYPES": "direct,simenv,simenv",
    }


def test_variables_are_recorded_with_the_hash_of_the_plugin() -> None:
    """Vectors of http://www.isthe.com/chongo/tech/comp/fnv."""
    recorded = jobs.recorded({"A": "", "SIMENV_SERVICE": "x", "B": "foobar"})
    assert recorded.pop("SIMENV_SLURM_SET") == (
        "A=cbf29ce484222325,SIMENV_SERVICE,B=85944171f73967e8"
    )
    assert recorded == {"A": "", "SIMENV_SERVICE": "x", "B": "foobar"}


@pytest.mark.parametrize(
    ("kind", "code"),
    [(NoServiceError, 1), (SlurmAwayError, 1), (TimedOutError, 1), (SlurmError, 0)],
)
def test_prolog_fails_for_what_may_be_repeated_alone(
    kind: type[SimenvError], code: int, conf: Path, tmp_path: Path
) -> None:
    program = tmp_path / "simenv"
    program.write_text(f"#!/bin/sh\nexit {kind.exit_code}\n")
    program.chmod(0o755)
    install(conf)
    environ = {**os.environ, "SPANK_SIMENV_QPU": "fez", "SLURM_JOB_ID": "7"}
    assert subprocess.run([conf / slurm.PROLOG], env=environ, check=False).returncode == code
