"""Slurm: `--qpu` of batch jobs, by a SPANK plugin and programs before and after each job.

`build` compiles the plugin with the headers of the site's Slurm; `install` writes the line of
plugstack.conf, prolog and epilog, the function for job_submit.lua and the file of licences into the
folder of slurm.conf. Invariant: `install` changes no file that it has not written, but for its own
line in plugstack.conf; what slurm.conf must say is returned, for the administrator to add.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import msgspec

from simenv import config
from simenv.errors import ConfigError, NotFoundError
from simenv.frontends import c_compiler

__all__ = ["Installation", "SlurmSite", "build", "install", "write"]

HERE = Path(__file__).parent
PLUGIN = "simenv_spank.so"
SUBMIT = "simenv_job_submit.lua"
PROLOG, EPILOG = "simenv_prolog.sh", "simenv_epilog.sh"
LICENSES = "simenv_licenses.conf"
MARK = "# simenv"
PROLOG_S = 45  # longest time of the prolog: the wait for the share, and the commands themselves
EPILOG_S = 30  # longest time of the epilog, for which Slurm waits; what it leaves, `sync` ends
_HEADERS = "the headers of the site's Slurm: apt-get install libslurm-dev, or slurm-devel"
_PROLOG = """\
#!/bin/sh
# PrologSlurmctld: reserve for a job, in the name of its user. A job without --qpu costs nothing
# here. It never fails, as Slurm would requeue the job: the job itself reports why it has nothing.
[ -n "$SPANK_SIMENV_QPU" ] || exit 0
{variables}timeout {seconds} {command} slurm reserve "$SLURM_JOB_ID" --qpu "$SPANK_SIMENV_QPU" \\
    --cluster {cluster}
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
    return slurm.SUCCESS
end
return slurm.SUCCESS
"""


class SlurmSite(msgspec.Struct, frozen=True):
    """Settings of the plugin, prolog and epilog. `service`: address of the environment's broker for
    the users of all nodes, `munge:OWNER@HOST:PORT/NAME`; `cluster`: ClusterName of slurm.conf;
    `gateway`: URL for IBM's clients and QRMI, "" for none; `munge`: socket of munged, "" for the
    package's; `admin`: the address for prolog and epilog, "" for `service`."""

    service: str
    cluster: str
    gateway: str = ""
    munge: str = ""
    admin: str = ""


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
    for path in (plugin, program):
        if not path.exists():
            raise NotFoundError(f"there is no {path}", hint="simenv slurm build")
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}", hint="the folder of slurm.conf")
    words = {"simenv": str(program), "service": site.service, "cluster": site.cluster}
    words |= {"gateway": site.gateway, "munge": site.munge}
    for name, value in words.items():
        if any(each.isspace() or each in "#\"'" for each in value):
            raise ConfigError(f"{name} = {value!r:.80} has a space, a quote or a #")
    arguments = " ".join(f"{name}={value}" for name, value in words.items() if value)
    plugstack = folder / "plugstack.conf"
    write(plugstack, _with_line(plugstack, f"required {plugin} {arguments} {MARK}"))
    variables = f"export SIMENV_SERVICE={shlex.quote(site.admin or site.service)}\n"
    # slurmctld gives its programs no SLURM_CONF.
    variables += f"export SLURM_CONF={shlex.quote(str(folder.absolute() / 'slurm.conf'))}\n"
    if site.munge:
        variables += f"export SIMENV_MUNGE_SOCKET={shlex.quote(site.munge)}\n"
    command, cluster = shlex.quote(str(program)), shlex.quote(site.cluster)
    prolog, epilog = folder / PROLOG, folder / EPILOG
    names = {"variables": variables, "command": command, "cluster": cluster}
    write(prolog, _PROLOG.format(**names, seconds=PROLOG_S), 0o755)
    write(epilog, _EPILOG.format(**names, seconds=EPILOG_S), 0o755)
    submit = folder / SUBMIT
    write(submit, (HERE / "spank" / SUBMIT).read_text())
    files = [plugstack, prolog, epilog, submit]
    lines = [f"PrologSlurmctld={prolog}", f"EpilogSlurmctld={epilog}", "JobSubmitPlugins=lua"]
    lines.append(f"include {folder / LICENSES}")
    own = folder / "job_submit.lua"
    if not own.exists():
        escaped = str(submit).replace("\\", "\\\\").replace('"', '\\"')
        write(own, _OWN_SUBMIT.format(path=f'"{escaped}"'))
        files.append(own)
    licenses = folder / LICENSES
    if not licenses.exists():
        write(licenses, f"{MARK}: written by `simenv slurm sync`\n")
        files.append(licenses)
    return Installation(tuple(files), tuple(lines))


def _with_line(path: Path, line: str) -> str:
    """Return the text of plugstack.conf with our line in place of an earlier one."""
    lines = path.read_text().splitlines() if path.exists() else []
    return "\n".join([*(each for each in lines if not each.endswith(MARK)), line]) + "\n"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file that all nodes read, never leaving a part of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, mode)
    os.replace(file.name, path)


def program() -> Path:
    """Return the command `simenv` of this installation. Raises NotFoundError."""
    own = Path(config.interpreter()).parent / "simenv"
    found = str(own) if own.exists() else shutil.which("simenv")
    if not found:
        raise NotFoundError("the command simenv is not installed", hint="--simenv PATH")
    return Path(found)
