"""Tables `slurm` and `pbs` of pools: what they become, and what is refused."""

import pytest
from failing import fails

from simenv.config.load import convert
from simenv.config.pools import pool_of, pool_text
from simenv.errors import ConfigError
from simenv.model import JobSpec


def pool(table: object, system: str = "slurm", **settings: object) -> JobSpec:
    spec = pool_of({"name": "big", system: table, **settings}, "test")
    assert spec.jobs is not None
    assert spec.nodes == "big:*"
    return spec.jobs


def test_table_becomes_jobs_whose_nodes_are_the_pool_s_own() -> None:
    table = {"partition": "gpu", "nodes": 1, "time": "4:00:00", "extra": "--constraint=a100 -q x"}
    jobs = pool(table, min=0, max=16, idle_s=600)
    extra = ("--constraint=a100", "-q", "x")
    assert jobs == JobSpec("slurm", 14_400.0, "gpu", extra=extra)
    assert pool({"queue": "workq", "time": 60}, "pbs") == JobSpec("pbs", 3_600.0, "workq")
    table = {"time": 1, "slots": 8, "memory": "64GiB", "gpus": 4, "account": "chem"}
    assert pool(table) == JobSpec("slurm", 60.0, "", "chem", 8, 64 * 2**30, 4)


def test_length_of_a_job_is_written_as_in_slurm() -> None:
    lengths = {
        90: 5_400, "90": 5_400, "1:30": 90, "2:00:10": 7_210, "1-12": 129_600, "1-12:30": 131_400,
        "1-00:00:01": 86_401,
    }  # fmt: skip
    assert {text: pool({"time": text}).time_s for text in lengths} == lengths


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        ("gpu", {}, "is not a table"),
        ({}, {}, "has no time"),
        ({"time": "soon"}, {}, "'soon' is no length of time"),
        ({"time": True}, {}, "no length of time"),
        ({"time": "0:10"}, {}, "slurm.time = 10 s is outside 60"),
        ({"time": 9, "partion": "gpu"}, {}, "unknown key 'partion'"),
        ({"time": 9, "nodes": 2}, {}, "a job has one node"),
        ({"time": 9, "slots": 0}, {}, "slurm.slots = 0 is outside 1"),
        ({"time": 9, "slots": "many"}, {}, "Expected `int`"),
        ({"time": 9, "gpus": 65}, {}, "slurm.gpus = 65 is outside"),
        ({"time": 9, "memory": "much"}, {}, "is not a size"),
        ({"time": 9, "partition": "a", "queue": "b"}, {}, "are the same"),
        ({"time": 9, "partition": "a b"}, {}, "is not one word"),
        ({"time": 9, "extra": "'--qos"}, {}, "cannot be split"),
        ({"time": 9, "extra": ["--a\nb"]}, {}, "is not one word"),
        ({"time": 9}, {"nodes": "gpu*"}, "has slurm and nodes"),
        ({"time": 9}, {"ranks": 2}, "has slurm and ranks=2"),
        ({"time": 9}, {"workers": "auto"}, "has slurm and workers=auto"),
        ({"time": 9}, {"pbs": {"time": 9}}, "exclude one another"),
    ],
)
def test_wrong_table_is_refused(table: object, settings: dict[str, object], message: str) -> None:
    fails(ConfigError, message, pool, table, **settings)


@pytest.mark.parametrize(
    ("system", "extra", "named"),
    [
        ("slurm", "--output=/dev/null", "--output=/dev/null"),
        ("slurm", "--qos=low --array=1-9", "--array=1-9"), ("slurm", "--arr 1-9", "--arr"),
        ("slurm", "-a1-9", "-a1-9"), ("slurm", "-q x -N 2", "-N"), ("slurm", "-HN2", "-HN2"),
        ("slurm", "--nodes=2", "--nodes=2"), ("slurm", "--time=5", "--time=5"),
        ("slurm", "--clusters=other", "--clusters=other"), ("slurm", "--wrap=true", "--wrap=true"),
        ("slurm", "job.sh", "job.sh"), ("slurm", "--qos=low job.sh", "job.sh"),
        ("slurm", "-q x job.sh", "job.sh"), ("pbs", "-J 1-9", "-J"), ("pbs", "-o /dev/null", "-o"),
        ("pbs", "-l select=2:ncpus=8", "select=2:ncpus=8"),
        ("pbs", "-lplace=excl,walltime=9", "-lplace=excl,walltime=9"),
        ("pbs", "-Wblock=true", "-Wblock=true"), ("pbs", "-- /bin/true", "--"),
        ("pbs", "-fz", "-fz"),
    ],
)  # fmt: skip
def test_extra_does_not_override_options_of_service(system: str, extra: str, named: str) -> None:
    error = fails(ConfigError, "", pool, {"time": 9, "extra": extra}, system)
    assert f"{system}.extra has {named!r}" in str(error)


@pytest.mark.parametrize(
    ("system", "extra"),
    [
        ("slurm", "--constraint=a100 -q x --exclusive --mem-per-cpu=2G --nodelist=n[1-4] -Cgpu"),
        ("slurm", "--signal=B:TERM@60 --export=ALL,A=1 --nice --reservation big -x n1 -w n2"),
        ("pbs", "-l place=excl -q gpu@server -P chem -W umask=022,group_list=chem -v A=1 -p 3"),
    ],
)
def test_other_options_of_the_site_are_passed(system: str, extra: str) -> None:
    assert pool({"time": 9, "extra": extra}, system).extra == tuple(extra.split())


def test_option_of_the_command_line_names_the_file() -> None:
    assert "simenv.toml" in fails(ConfigError, "is not a table", pool_text, "big:slurm=gpu").hint


def test_accounts_are_not_isolated_on_nodes_of_jobs() -> None:
    settings = {"pools": [{"name": "big", "slurm": {"time": 9}}], "isolation": "account"}
    fails(ConfigError, "isolation = 'account'", convert, settings)
