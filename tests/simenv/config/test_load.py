"""Settings: files, commands, drift, file systems, pools."""

import os
import sys
from pathlib import Path, PurePosixPath

import msgspec
import pytest
from failing import fails

from simenv import config, files
from simenv.config import paths
from simenv.config.pools import DriftSpec, drift_of, pool_of, pool_text
from simenv.errors import ConfigError
from simenv.model import PoolSpec

NAME = "kept"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment that was up with settings of its own, and has a journal."""
    folder = tmp_path / NAME
    folder.mkdir()
    pool = PoolSpec(min=2, max=2)
    outcome = config.Config(name=NAME, durability="power", pools=(pool,), slots=3, faults="x:1")
    config.write(outcome, folder / "config.json")
    (folder / "journal.db").touch()
    return {"SIMENV_HOME": str(tmp_path)}


def test_settings_of_last_start_need_its_journal(home: dict[str, str]) -> None:
    document = config.load({"name": NAME, "slots": 1}, environ=home)
    assert (document.durability, document.slots, document.pools[0].min) == ("power", 1, 2)
    assert document.faults == ""
    (Path(home["SIMENV_HOME"]) / NAME / "journal.db").unlink()
    assert config.load({"name": NAME}, environ=home).slots == 0
    assert config.load({"name": NAME, "resume": True}, environ=home).slots == 3


def test_named_file_replaces_settings_of_last_start(home: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("silent_s = 3.0\n")
    document = config.load({"name": NAME}, file, home)
    assert (document.durability, document.slots, document.silent_s) == ("accepted", 0, 3.0)


def test_file_for_another_environment_is_refused(home: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('name = "other"\n')
    fails(ConfigError, "name = 'other'", config.load, {"name": NAME}, file, home)
    assert config.load({"name": "other"}, file, home).name == "other"


def test_no_pool_has_the_name_of_all_pools() -> None:
    fails(ConfigError, "cannot be named 'all'", config.convert, {"pools": [{"name": "all"}]})


@pytest.mark.parametrize(("age_s", "slots"), [(100, 3), (-100, 4)])
def test_simenv_toml_counts_only_if_edited(home: dict[str, str], age_s: int, slots: int) -> None:
    file = Path(home["SIMENV_HOME"]) / NAME / "simenv.toml"
    file.write_text("slots = 4\n")
    start_s = file.with_name("config.json").stat().st_mtime
    os.utime(file, (start_s - age_s, start_s - age_s))
    assert config.load({"name": NAME}, environ=home).slots == slots


def test_options_and_folders_that_cannot_be_are_named(tmp_path: Path) -> None:
    environ = {"SIMENV_HOME": str(tmp_path)}
    text = "^options: durability 'foo' is not known"
    fails(ConfigError, text, config.load, {"durability": "foo"}, environ=environ)
    home = tmp_path / "file" / "home"
    home.parent.touch()
    assert (
        "SIMENV_HOME"
        in fails(ConfigError, "cannot make the folder", files.private_folder, home).hint
    )


def test_retention_limits_are_read_from_config_file(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text("[history]\nkeep_days = 7\n[results]\nkeep_gib = 2.5\n")
    document = config.load({"name": NAME}, file, {"SIMENV_HOME": str(tmp_path)})
    assert (document.history.keep_days, document.results.keep_gib) == (7.0, 2.5)
    assert (config.Config().history.keep_days, config.Config().results.keep_gib) == (30.0, 20.0)


@pytest.mark.parametrize(
    "values",
    [
        {"history": {"keep_days": -1.0}}, {"results": {"keep_gib": 0.0}},
        {"history": {"keep_day": 3.0}}, {"results": {"keep_gib": float("nan")}},
    ],
)  # fmt: skip
def test_invalid_retention_limit_is_refused(values: dict[str, object]) -> None:
    fails(ConfigError, "keep_", config.convert, values)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@db/simenv", "no URL of a database"),
        ("postgresql://me@db/simenv\n", "no URL of a database"),
        ("postgresql://me:secret@db/simenv", "has a password"),
        ("postgresql://me@db/simenv?password=secret", "has a password"),
        ("postgresql://[db/simenv", "cannot be read"),
    ],
)
def test_journal_url_of_no_database_or_with_password_is_refused(url: str, said: str) -> None:
    error = fails(ConfigError, said, config.convert, {"journal": url})
    assert "secret" not in f"{error.message}{error.hint}"


def test_settings_of_last_start_need_no_file_with_journal_in_database(home: dict[str, str]) -> None:
    last = config.Config(name=NAME, slots=3, journal="postgresql://me@db/simenv")
    folder = Path(home["SIMENV_HOME"]) / NAME
    (folder / "journal.db").unlink()
    config.write(last, folder / "config.json")
    assert config.load({"name": NAME}, environ=home).slots == 3


def test_journal_on_scratch_beside_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(paths, "kind_of", lambda p: "nfs4" if p.is_relative_to(home) else "ext4")
    environ = {"SIMENV_HOME": str(home), "SIMENV_SCRATCH": str(scratch)}
    where = config.places(config.Config(name=NAME), environ)
    assert (where.home, where.state.parent) == (home / NAME, scratch / f"simenv-{os.getuid()}")
    other = {**environ, "SIMENV_HOME": str(home / "other")}
    assert config.places(config.Config(name=NAME), other).state != where.state
    assert config.places(config.Config(name=NAME, network_state=True), environ).state == home / NAME
    named = config.Config(name=NAME, state_dir=str(tmp_path / "here"))
    assert config.places(named, environ).state == tmp_path / "here"


def test_simenv_service_is_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def named(value: str) -> Path | None:
        return config.service_file({"SIMENV_SERVICE": value, "SIMENV_HOME": "/home/x"})

    assert named("lab") == Path("/home/x/lab/connection.json")
    assert (named("key.simenv"), named("/a/lab")) == (tmp_path / "key.simenv", Path("/a/lab"))
    assert named("./lab") == tmp_path / "lab"
    (tmp_path / "lab").touch()
    assert named("lab") == tmp_path / "lab"
    assert named("") is None


@pytest.mark.parametrize("program", ["", "/opt/defw/bin/defwp"])
def test_other_executable_needs_python(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.interpreter({}) == sys.executable
    monkeypatch.setattr(sys, "executable", program)
    assert config.interpreter({"SIMENV_PYTHON": "/usr/bin/p"}) == "/usr/bin/p"
    fails(ConfigError, "set SIMENV_PYTHON", config.interpreter, {})


def test_link_python_to_other_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "python3"
    link.symlink_to(tmp_path / "defwp")
    monkeypatch.setattr(sys, "executable", str(link))
    fails(ConfigError, "which is not Python", config.interpreter, {})


@pytest.mark.parametrize("value", ["1" + "0" * 5_000, "[" * 500 + "]" * 500], ids=["long", "deep"])
def test_file_that_python_cannot_parse_is_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text(f"[policies.main]\ncredits = {value}\n")
    fails(ConfigError, r"simenv\.toml: ", config.load, {}, file)
    fails(ConfigError, "not an address", config.convert, {"listen": f"tcp://localhost:{value}"})


GOOD = "mpirun -n {ranks} nwq_qasm -q {circuit} --shots {shots} --random_seed {seed}"


def test_a_command_is_a_program_with_placeholders() -> None:
    text = f"nwq:engine=external,workers=2,command={GOOD}"
    assert pool_text(text).command == GOOD
    assert pool_of({"name": "x", "engine": "external", "command": GOOD}, "test").command == GOOD


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"command": ""}, "no command"),
        ({"engine": "statevector"}, "engine=statevector with a command"),
        ({"command": "sim {circuit}"}, "lacks {shots}"),
        ({"command": "sim {shots}"}, "lacks {circuit}"),
        ({"command": "sim {circuit} {shots} {nodes}"}, "has {nodes}"),
        ({"command": "sim {circuit} {shots:d}"}, "has {shots}"),
        ({"command": "sim {circuit.x} {shots}"}, "has {circuit.x}"),
        ({"command": "sim {circuit} {shots} }"}, "brace alone"),
        ({"command": "sim '{circuit} {shots}"}, "cannot be split"),
        ({"command": "{circuit} {shots}"}, "does not begin with a program"),
        ({"command": "   "}, "does not begin with a program"),
        ({"command": "sim\n{circuit} {shots}"}, "printable line"),
        ({"command": "sim {circuit} {shots} " + 3_000 * "x"}, "2048 characters"),
        ({"ranks": 2}, "a command and ranks=2"),
        ({"device": "fez"}, "a command and device=fez"),
    ],
)
def test_a_refusal_names_the_fault(changes: dict[str, object], fault: str) -> None:
    table = {"name": "nwq", "engine": "external", "command": GOOD, **changes}
    error = fails(ConfigError, "", pool_of, table, "test")
    assert (fault in error.message, bool(error.hint)) == (True, True)


def test_pairs_become_a_spec() -> None:
    text = "walk:seed=7:every_s=60:spread=0.2:factor=10:outages=9+1/3+2"
    assert drift_of(text, "here") == DriftSpec("walk", 10.0, 7, 60.0, 0.2, ((3.0, 2.0), (9.0, 1.0)))
    assert drift_of("replay", "here") == DriftSpec("replay")
    jumping = DriftSpec("replay", seed=3, t1_jumps=(2.0, 600.0, 0.2))
    assert drift_of("replay:seed=3:t1_jumps=2+600+0.2", "here") == jumping


@pytest.mark.parametrize(
    "text",
    [
        "jump", "replay:spread=3", "walk:t1_jumps=2+600", "walk:t1_jumps=2+600+1.5",
        "replay:t1_jumps=0+1+x", "walk:seed", "walk:seed=1:seed=2", "walk:every_s=0",
        "walk:factor=-1", "walk:factor=nan", "walk:seed=x", "walk:outages=5", "walk:outages=5+0",
    ],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    fails(ConfigError, "here: drift", drift_of, text, "here")


def test_drift_and_pace_need_a_device() -> None:
    pool = pool_text("lab:device=chip,pace=true,drift=replay:factor=60")
    assert (pool.pace, pool.drift) == (True, "replay:factor=60")
    for text in ("lab:pace=true", "lab:drift=walk"):
        fails(ConfigError, "without a device", pool_text, text)


LAPTOP = """\
22 27 0:21 / /proc rw,nosuid,nodev shared:11 - proc proc rw
27 1 259:2 / / rw,noatime shared:1 - ext4 /dev/nvme0n1p2 rw
30 27 259:3 / /home rw shared:2 - btrfs /dev/nvme0n1p3 rw
31 27 0:40 / /home/me/far\\040away rw shared:4 master:2 - fuse.sshfs me@there:/ rw,user_id=1000
32 27 0:41 / /tmp rw - tmpfs tmpfs rw
"""
CLUSTER = """\
60 1 0:35 / / rw,relatime - overlay overlay rw
72 60 0:58 / /home rw,relatime shared:8 - nfs4 nas:/vol/home rw,vers=4.2
73 60 0:59 / /lustre/scratch rw shared:9 - lustre 10.0.0.1@o2ib:/scratch rw
74 60 8:2 / /local rw - xfs /dev/sda2 rw
75 60 0:60 / /gpfs rw - gpfs gpfs0 rw
76 72 0:61 / /home/me/.cache rw - tmpfs tmpfs rw
77 60 0:62 / /mnt rw - nfs old:/ rw
78 60 0:63 / /mnt rw - ext4 /dev/sdb1 rw
a line that is none
"""


@pytest.mark.parametrize(
    ("mounts", "folder", "kind"),
    [
        (LAPTOP, "/home/me/.simenv", "btrfs"), (LAPTOP, "/home/me/far away/.simenv", "fuse.sshfs"),
        (LAPTOP, "/homework", "ext4"), (LAPTOP, "/tmp", "tmpfs"),
        (CLUSTER, "/home/me/.simenv", "nfs4"), (CLUSTER, "/home/me/.cache/x", "tmpfs"),
        (CLUSTER, "/lustre/scratch/me", "lustre"), (CLUSTER, "/lustre", "overlay"),
        (CLUSTER, "/local/tmp", "xfs"), (CLUSTER, "/mnt/x", "ext4"), ("", "/home", ""),
    ],
)  # fmt: skip
def test_filesystem_of_folder_is_of_innermost_mount(mounts: str, folder: str, kind: str) -> None:
    assert paths.kind(PurePosixPath(folder), mounts) == kind


def test_network_filesystems_are_recognised() -> None:
    network = ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "9p", "fuse.sshfs"]
    network.append("fuse.glusterfs")
    local = ["", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.ntfs-3g"]
    assert [kind for kind in (*network, *local) if paths.is_network(kind)] == network


def test_missing_folder_has_filesystem_of_its_parent(tmp_path: Path) -> None:
    assert paths.kind_of(tmp_path / "a" / "b") == paths.kind_of(tmp_path) != ""


WHOLE = PoolSpec("sv", "statevector", 4, 4, 90.0, 8, 2 * 2**30, "gpu*,node7")


def test_pool_option_sets_all_fields() -> None:
    assert config.pool_text("g:engine=gpu,workers=auto") == PoolSpec("g", "gpu", auto_workers=True)
    text = "sv:engine=statevector,workers=4,ranks=8,memory=2GiB,idle_s=90,nodes=gpu*+node7"
    assert config.pool_text(text) == WHOLE


@pytest.mark.parametrize("nodes", ["gpu*+node7", "gpu*,node7", ["gpu*", "node7"]])
def test_pool_table_in_config_file_equals_pool_option(nodes: object) -> None:
    table = {
        "name": "sv", "engine": "statevector", "workers": 4, "ranks": 8, "memory": "2GiB",
        "idle_s": 90, "nodes": nodes,
    }  # fmt: skip
    assert config.convert({"pools": [table]}).pools == (WHOLE,)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("a", 1, 1), ("a:workers=3", 3, 3), ("a:workers=0", 0, 1), ("a:min=2", 2, 2),
        ("a:max=5", 1, 5), ("a:min=0,max=5", 0, 5),
    ],
)  # fmt: skip
def test_workers_min_and_max_set_pool_size(text: str, least: int, most: int) -> None:
    spec = config.pool_text(text)
    assert (spec.min, spec.max) == (least, most)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:workrs=2", "unknown key 'workrs'"),
        ("a:workers", "'workers' is not understood"),
        ("a:name=b", "'name=b' is not understood"),
        ("a:ranks=2,ranks=4", "ranks is given twice"),
        ("a:device=", "device is empty"),
        ("a:workers=2,max=4", "workers cannot be combined with min or max"),
        ("a:workers=two", "Expected `int`"),
        ("a:min=3,max=2", "min=3, max=2"),
        ("a:workers=65537", "max=65537"),
        ("a:ranks=0", r"ranks = 0 is outside 1 \.\. 4096"),
        ("a:ranks=4097", "ranks = 4097 is outside"),
        ("a:memory=much", "memory = 'much' is not a size"),
        ("a:idle_s=-1", "idle_s = -1"),
        ("a:idle_s=nan", "idle_s = nan"),
        ("a:idle_s=inf", "idle_s = inf"),
        ("a:idle_s=1e300", "idle_s = 1e"),
        ("a:nodes=gpu[07-08]", r"nodes = 'gpu\[07-08\]' is not"),
        ("a:nodes=-x", "nodes = '-x' is not"),
        ("A:workers=1", "pool name 'A' is not allowed"),
        ("main.x2:workers=1", "pool 'main.x2' has a name of the form that gangs have"),
    ],
)
def test_invalid_pool_option_is_refused(text: str, said: str) -> None:
    fails(ConfigError, said, config.pool_text, text)


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        ({"accounts": {"chem": {"shar": 2}}}, "unknown key 'accounts.chem.shar'", "`share`"),
        ({"gateway": {"lisen": "lo:0"}}, "unknown key 'gateway.lisen'", "`listen`"),
        ({"qos": {"fast": {"priority": "high"}}}, r"qos\.fast\.priority: Expected `int`", ""),
        ({"history": {"keep_days": "a"}}, r"history\.keep_days: Expected `float`", ""),
        ({"accounts": {"chem": 5}}, r"accounts\.chem: Expected `object`", ""),
        ({"accounts": 5}, "accounts = '5' is not a table", "[accounts]"),
        ({"pools": {"name": "main"}}, "pools is one table", "[[pools]]"),
    ],
)
def test_bad_entry_is_named_by_whole_key(settings: dict[str, object], said: str, hint: str) -> None:
    assert hint in fails(ConfigError, said, config.convert, settings, "simenv.toml").hint


def test_misspelt_pool_key_is_refused_with_suggestion() -> None:
    pools = {"pools": [{"name": "a", "rank": 2}]}
    error = fails(ConfigError, "", config.convert, pools, "simenv.toml")
    assert error.message == "simenv.toml: pools[0]: unknown key 'rank'"
    assert error.hint == "did you mean `ranks`?"


def test_hardware_pool_has_provider_and_one_worker() -> None:
    spec = config.pool_text("qpu:engine=hardware,provider=lab.fridge:one")
    assert spec == PoolSpec("qpu", "hardware", 1, 1, provider="lab.fridge:one")
    assert config.pool_text("qpu:engine=hardware,provider=a:b,workers=1,ranks=1").max == 1
    resource = config.pool_text("q:engine=hardware,provider=qrmi:ibm-fez.1,environ=fez_*+QRMI_*")
    assert (resource.provider, resource.environ) == ("qrmi:ibm-fez.1", "fez_*,QRMI_*")


def test_refresh_command_of_a_device_is_split_into_words_and_checked() -> None:
    table = {"refresh": "fetch --device 'my fez'", "every_h": 6}
    found = config.convert({"devices": {"fez": table}}).devices["fez"]
    assert (found.refresh, found.every_h) == (("fetch", "--device", "my fez"), 6.0)
    for wrong, said in (
        ({"refresh": ""}, "devices.fez: refresh is not a command"),
        ({"refresh": "fetch 'fez"}, "cannot be split into words: No closing quotation"),
        ({"refresh": ["fetch", "a\nb"]}, "cannot be printed"),
        ({**table, "every_h": 0}, "every_h = 0.0 is outside 0.01 .. 8784.0"),
        ({**table, "timeout_s": 1e9}, "timeout_s = 1000000000.0 is outside"),
        ({**table, "environ": "A B"}, "'A B' is not a variable's name"),
        ({**table, "shell": True}, "shell"),
    ):
        fails(ConfigError, said, config.convert, {"devices": {"fez": wrong}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q:engine=hardware", "no provider"),
        ("q:provider=a:b", "engine=any with a provider"),
        ("q:engine=aer,provider=a:b", "engine=aer with a provider"),
        ("q:engine=hardware,provider=a", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a:b:c", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=qrmi:fez", "reads environment variables, and no environ"),
        ("q:engine=hardware,provider=a:b,environ=*", r"environ = '\*' is not a variable's name"),
        ("q:engine=hardware,provider=a:b,environ=A+B=1", "'B=1' is not a variable's name"),
        ("q:environ=LAB_TOKEN", "environ and no provider"),
        ("q:engine=hardware,provider=a.:b", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a:b()", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=../a:b", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a:b,workers=2", "2 to 2 workers of 1 ranks"),
        ("q:engine=hardware,provider=a:b,workers=0", "0 to 1 workers"),
        ("q:engine=hardware,provider=a:b,ranks=2", "workers of 2 ranks"),
    ],
)
def test_invalid_hardware_pool_option_is_refused(text: str, said: str) -> None:
    fails(ConfigError, said, config.pool_text, text)


def test_import_path_of_first_start_is_used_by_next_start(tmp_path: Path) -> None:
    environ = {"SIMENV_HOME": str(tmp_path), "PYTHONPATH": f"/opt/lab{os.pathsep}lib"}
    document = config.load({"name": "e", "pools": [PoolSpec("main")]}, environ=environ)
    assert document.import_from == (os.getcwd(), "/opt/lab", os.path.abspath("lib"))
    folder = tmp_path / "e"
    folder.mkdir()
    config.write(msgspec.structs.replace(document, import_from=("/there",)), folder / "config.json")
    (folder / "journal.db").touch()
    assert config.load({"name": "e"}, environ=environ).import_from == ("/there",)
    restored = {"name": "f", "pools": [PoolSpec("main")], "import_from": ["/there"]}
    assert config.load(restored, environ=environ).import_from == ("/there", *document.import_from)
