"""Slurm: `--qpu` of batch jobs, by a SPANK plugin and programs before and after each job.

`build` compiles the plugin with the headers of the site's Slurm; `install` writes the line of
plugstack.conf, prolog and epilog, the functions for job_submit.lua, the unit of systemd for
`simenv slurm sync` and, in a folder of its own, the file of licences into the folder of slurm.conf.
Invariant: `install` changes no file that it has not written, but for its own
line in plugstack.conf; what slurm.conf must say is returned, for the administrator to add.
`check` comes before: Slurm reads plugstack.conf at each submission, and refuses every one while a
plugin of it cannot be loaded.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from simenv import config
from simenv.errors import (
    ConfigError,
    NoServiceError,
    NotFoundError,
    SlurmAwayError,
    SlurmFileError,
    TimedOutError,
)
from simenv.frontends import c_compiler
from simenv.sandbox.progress import cpu_share

__all__ = ["Installation", "SlurmSite", "build", "check", "conf_value", "install", "write"]

HERE = Path(__file__).parent
PLUGIN = "simenv_spank.so"
SUBMIT = "simenv_job_submit.lua"
PROLOG, EPILOG = "simenv_prolog.sh", "simenv_epilog.sh"
LICENSES = "simenv/simenv_licenses.conf"  # in a folder that SlurmUser owns
UNIT = "simenv_sync.service"
MARK = "# simenv"
PROLOG_S = 45  # longest time of the prolog: the wait for the share, and the commands themselves
CHECK_S = 30.0  # longest time of a command that `check` runs, of a processor that it could have
NOBODY = 65_534
OPTION = "qpu"
EPILOG_S = 30  # longest time of the epilog, for which Slurm waits; what it leaves, `sync` ends
_OPTION = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
_HEADERS = "the headers of the site's Slurm: apt-get install libslurm-dev, or slurm-devel"
_PROLOG = """\
#!/bin/sh
# PrologSlurmctld: reserve for a job, in the name of its user. A job without --qpu costs nothing
# here. Slurm requeues a job whose prolog fails, so it fails only where no service or no slurmctld
# answers, or its share is not free in time (124); else the job itself reports why it has nothing.
[ -n "$SPANK_SIMENV_QPU" ] || exit 0
{variables}timeout {seconds} {command} slurm reserve "$SLURM_JOB_ID" --qpu "$SPANK_SIMENV_QPU" \\
    --cluster {cluster}
case $? in {away}|{slow}|{late}) exit 1 ;; esac
exit 0
"""
_EPILOG = """\
#!/bin/sh
# EpilogSlurmctld: end the reservation of a job. A job without --qpu costs nothing here.
[ -n "$SPANK_SIMENV_QPU" ] || exit 0
{variables}exec timeout {seconds} {command} slurm release "$SLURM_JOB_ID" --cluster {cluster}
"""
_OWN_SUBMIT = """\
-- The site's job_submit.lua, written by `simenv slurm install`; other rules may be added.
dofile({path})
function slurm_job_submit(job_desc, part_list, submit_uid)
    return simenv_job_submit(job_desc)
end
function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return simenv_job_modify(job_desc, job_rec)
end
return slurm.SUCCESS
"""


_UNIT = """\
# `simenv slurm sync`, written by `simenv slurm install`: systemctl enable --now {path}
[Unit]
Description=Licences and reservations of Slurm's jobs in simenv
Wants=network-online.target
After=network-online.target munge.service slurmctld.service
# It is started again as often as it fails.
StartLimitIntervalSec=0

[Service]
User={user}
{variables}ExecStart={command} slurm sync --every 2 --conf {conf} --cluster {cluster}
Restart=always
RestartSec=5s
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


class SlurmSite(msgspec.Struct, frozen=True):
    """Settings of the plugin, prolog and epilog. `service`: address of the environment's broker for
    the users of all nodes, `munge:OWNER@HOST:PORT/NAME`; `cluster`: ClusterName of slurm.conf;
    `gateway`: URL for IBM's clients and QRMI, "" for none; `munge`: socket of munged, "" for the
    package's; `admin`: the address for prolog and epilog, "" for `service`; `ca`: file with the
    authority of the gateway's certificate, "" for that of the environment; `option`: name of the
    jobs' option, without the dashes."""

    service: str
    cluster: str
    gateway: str = ""
    munge: str = ""
    admin: str = ""
    ca: str = ""
    option: str = OPTION


class Installation(msgspec.Struct, frozen=True):
    """Files that were written, and the lines for slurm.conf."""

    files: tuple[Path, ...]
    slurm_conf: tuple[str, ...]


def build(folder: Path, compiler: str = "", include: str = "") -> Path:
    """Compile the plugin into a folder, and return its path. `include`: folder of
    slurm/spank.h, if the compiler does not search it. Raises ConfigError."""
    compiler = c_compiler.find_compiler(compiler)
    folder.mkdir(parents=True, exist_ok=True)
    plugin = folder.absolute() / PLUGIN
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / PLUGIN
        argv = [compiler, *c_compiler.FLAGS, *([f"-I{include}"] if include else [])]
        argv += ["-shared", "-o", str(built), str(HERE / "spank" / "simenv_spank.c")]
        c_compiler.compile_sources(argv, hint=_HEADERS)
        os.replace(built, plugin)  # a running slurmstepd keeps its plugin
    return plugin


def install(plugin: Path, folder: Path, site: SlurmSite, program: Path) -> Installation:
    """Install a built plugin in the folder of slurm.conf. `program`: the command `simenv` on all
    nodes. Idempotent. Raises NotFoundError, ConfigError for a value that plugstack.conf cannot
    have."""
    plugstack, text = _plugstack(plugin, folder, site, program)
    write(plugstack, text)
    variables = f"export SIMENV_SERVICE={shlex.quote(site.admin or site.service)}\n"
    # slurmctld gives its programs no SLURM_CONF.
    variables += f"export SLURM_CONF={shlex.quote(str(folder.absolute() / 'slurm.conf'))}\n"
    if site.munge:
        variables += f"export SIMENV_MUNGE_SOCKET={shlex.quote(site.munge)}\n"
    command, cluster = shlex.quote(str(program)), shlex.quote(site.cluster)
    prolog, epilog = folder / PROLOG, folder / EPILOG
    failing = {"away": NoServiceError.exit_code, "slow": SlurmAwayError.exit_code}
    failing["late"] = TimedOutError.exit_code
    names = {"variables": variables, "command": command, "cluster": cluster}
    write(prolog, _PROLOG.format(**names, seconds=PROLOG_S, **failing), 0o755)
    write(epilog, _EPILOG.format(**names, seconds=EPILOG_S), 0o755)
    submit = folder / SUBMIT
    functions = (HERE / "spank" / SUBMIT).read_text()
    write(submit, functions.replace(f'OPTION = "{OPTION}"', f'OPTION = "{site.option}"'))
    files = [plugstack, prolog, epilog, submit, *_install_sync(folder, site, program)]
    lines = [f"PrologSlurmctld={prolog}", f"EpilogSlurmctld={epilog}", "JobSubmitPlugins=lua"]
    lines.append(f"include {folder / LICENSES}")
    own = folder / "job_submit.lua"
    if not own.exists():
        escaped = str(submit).replace("\\", "\\\\").replace('"', '\\"')
        write(own, _OWN_SUBMIT.format(path=f'"{escaped}"'))
        files.append(own)
    return Installation(tuple(files), tuple(lines))


def _install_sync(folder: Path, site: SlurmSite, program: Path) -> list[Path]:
    """Write what `simenv slurm sync` needs, and return the files: its unit, and the file of
    licences in a folder of SlurmUser."""
    user = conf_value(folder, "SlurmUser") or "root"  # the default of Slurm
    licenses, unit = folder.absolute() / LICENSES, folder.absolute() / UNIT
    licenses.parent.mkdir(exist_ok=True)
    written = [unit]
    if not licenses.exists():
        write(licenses, f"{MARK}: written by `simenv slurm sync`\n")
        written.append(licenses)
    try:
        for path in (licenses.parent, licenses):
            shutil.chown(path, int(user) if user.isdecimal() else user)
    except (OSError, LookupError) as error:
        text = f"{licenses.parent} cannot be given to SlurmUser {user!r}: {error}"
        raise ConfigError(text, hint="run it as root, where the account exists") from error
    environ = {"SIMENV_SERVICE": site.admin or site.service}
    environ["SLURM_CONF"] = str(folder.absolute() / "slurm.conf")
    if site.munge:
        environ["SIMENV_MUNGE_SOCKET"] = site.munge
    words = {"command": program, "conf": folder.absolute(), "cluster": site.cluster, "path": unit}
    words |= {"folder": licenses.parent, "user": user}
    names = {name: _of_systemd(str(word)) for name, word in words.items()}
    lines = [f"Environment={_of_systemd(f'{name}={value}')}\n" for name, value in environ.items()]
    write(unit, _UNIT.format(**names, variables="".join(lines)))
    return written


def _of_systemd(word: str) -> str:
    """Return a word as a unit has it, systemd.syntax(7)."""
    word = word.replace("\\", "\\\\").replace("%", "%%")
    return f'"{word}"' if re.search(r"\s", word) else word


def check(plugin: Path, folder: Path, site: SlurmSite, program: Path) -> None:
    """Check that Slurm of this host loads the plugin from the plugstack.conf that `install` would
    write, and that users can run the program: `srun --version` and the program run as nobody where
    this process is root's. Raises ConfigError, and the errors of `install`."""
    _, text = _plugstack(plugin, folder, site, program)
    _run_as_user([str(program), "--version"], {}, "at one path on all nodes, for all users")
    with (
        tempfile.NamedTemporaryFile("w", dir=folder, suffix=".conf") as plugstack,
        tempfile.NamedTemporaryFile("w", dir=folder, suffix=".conf") as conf,
    ):
        plugstack.write(text)
        own = folder.absolute() / "slurm.conf"
        # Without one, on a node that gets its configuration from slurmctld: these suffice.
        needed = f"include {own}" if own.exists() else "ClusterName=check\nSlurmctldHost=localhost"
        conf.write(f"{needed}\nPlugStackConfig={plugstack.name}\n")
        for file in (plugstack, conf):
            file.flush()
            os.fchmod(file.fileno(), 0o644)
        hint = "on all nodes, a plugin that users can read, for the version of Slurm there: `build`"
        printed = _run_as_user(["srun", "--version"], {"SLURM_CONF": conf.name}, hint)
    for line in printed.splitlines():
        if "provided by both" in line and plugin.name in line:
            hint = "another name for jobs to use, and the users' guide: --option simenv-qpu"
            raise ConfigError(f"plugstack.conf: {_shown(line)}", hint=hint)


def _run_as_user(argv: Sequence[str], environ: dict[str, str], hint: str) -> str:
    """Run a command as users of the site do, and return what it prints on stderr. Raises
    ConfigError if it fails."""
    nobody = NOBODY if os.geteuid() == 0 else None
    base = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, env=base | environ, cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=CHECK_S / cpu_share(), check=False,
            user=nobody, group=nobody, extra_groups=None if nobody is None else (),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{shlex.join(argv)} does not run: {error}", hint=hint) from error
    if done.returncode:
        printed = done.stderr or f"exit code {done.returncode}"
        raise ConfigError(f"{shlex.join(argv)}: {_shown(printed)}", hint=hint)
    return done.stderr


def _shown(text: str) -> str:
    """Return what srun prints as one line of at most 800 characters."""
    lines = (re.sub(r"^srun: (?:error: |spank: )*", "", line) for line in text.splitlines())
    return "; ".join(dict.fromkeys(filter(None, map(str.strip, lines))))[:800]


def conf_value(folder: Path, name: str) -> str:
    """Return a value of slurm.conf or a file that it includes; "" if there is none, or it cannot
    be read."""
    pattern = re.compile(rf"\s*(?:(include)\s+|{name}\s*=\s*)([^\s#]+)", re.IGNORECASE)
    found, seen, waiting = "", set[Path](), [folder / "slurm.conf"]
    while waiting:
        path = waiting.pop()
        if path in seen or not os.access(path, os.R_OK):
            continue
        seen.add(path)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            match = pattern.match(line)
            if match and match[1]:
                waiting.append(folder / match[2])
            elif match:
                found = match[2]
    return found


def _plugstack(plugin: Path, folder: Path, site: SlurmSite, program: Path) -> tuple[Path, str]:
    """Return the path of plugstack.conf and its text with the plugin. Raises NotFoundError,
    ConfigError."""
    for path in (plugin, program):
        if not path.exists():
            raise NotFoundError(f"there is no {path}", hint="simenv slurm build")
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}", hint="the folder of slurm.conf")
    words = {"simenv": str(program), "service": site.service, "cluster": site.cluster}
    words |= {"gateway": site.gateway, "ca": site.ca, "munge": site.munge}
    for name, value in words.items():
        if any(each.isspace() or each in "#\"'" for each in value):
            raise ConfigError(f"{name} = {value!r:.80} has a space, a quote or a #")
    if not _OPTION.match(site.option):
        hint = "lower-case letters, digits and -, from a letter, at most 31: --option simenv-qpu"
        raise ConfigError(f"option {site.option!r:.80} is no name of an option", hint=hint)
    words |= {"option": "" if site.option == OPTION else site.option}
    arguments = " ".join(f"{name}={value}" for name, value in words.items() if value)
    path = Path(conf_value(folder, "PlugStackConfig") or folder / "plugstack.conf")
    return path, _with_line(path, f"required {plugin} {arguments} {MARK}")


def _with_line(path: Path, line: str) -> str:
    """Return the text of plugstack.conf with our line in place of an earlier one."""
    lines = path.read_text().splitlines() if path.exists() else []
    return "\n".join([*(each for each in lines if not each.endswith(MARK)), line]) + "\n"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file that all nodes read, never leaving a part of it. Raises SlurmFileError."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        os.chmod(file.name, mode)
        os.replace(file.name, path)
    except OSError as error:
        raise unusable(path, "write", error) from error


def unusable(path: Path, verb: str, error: OSError) -> SlurmFileError:
    """Return the error of a file that the user of this process cannot read or write; it names both,
    and the owner of the folder."""
    text = f"{_user(os.geteuid())} cannot {verb} {path}: {error.strerror}"
    with suppress(OSError):
        info = path.parent.stat()
        mode = stat.S_IMODE(info.st_mode)
        text += f" (the folder {path.parent} is of {_user(info.st_uid)}, mode {mode:04o})"
    hint = "run it as the owner of the folder; of sync, that is SlurmUser"
    return SlurmFileError(text, hint=hint)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def program() -> Path:
    """Return the command `simenv` of this installation. Raises NotFoundError."""
    own = Path(config.interpreter()).parent / "simenv"
    found = str(own) if own.exists() else shutil.which("simenv")
    if not found:
        raise NotFoundError("the command simenv is not installed", hint="--simenv PATH")
    return Path(found)
