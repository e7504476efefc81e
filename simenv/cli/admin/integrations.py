"""`simenv qfw` and `simenv qpi`: installation for QFw and C, and checks of it.

`simenv qpi` builds the C library for compiled programs, and prints the flags to compile with.
`simenv qfw` installs simenv's service in QFw and its DEFw, removes it, and checks whether QFw can
load it and finds an environment.
"""

from __future__ import annotations

import filecmp
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

import simenv
from simenv import config
from simenv.cli import app
from simenv.cli.admin.doctor_installation import DoctorFinding, report, verdict
from simenv.errors import ConfigError, NotFoundError, SimenvError
from simenv.frontends.qfw import SERVICES, STARTUP, installing

qpi = typer.Typer(help="Build the C library for compiled programs.")
Folder = Annotated[
    Path,
    typer.Argument(metavar="[FOLDER]", help="Folder of the library: include and lib below it."),
]
DEFAULT = Path("build/qpi")


@qpi.command()
def build(context: typer.Context, folder: Folder = DEFAULT) -> None:
    """Compile the library with CC, default cc, and install it in a folder."""
    from simenv.frontends.qpi import build

    built = build(folder)
    app.settings_of(context).answer(
        {"folder": str(built.folder), "library": str(built.library)},
        (str(built.library), f"next: cc program.c $(simenv qpi flags {folder}) -o program"),
    )


@qpi.command()
def flags(context: typer.Context, folder: Folder = DEFAULT) -> None:
    """Print the flags to compile and link a program with, as `pkg-config --cflags --libs`."""
    from simenv.frontends.qpi import InstalledLibrary

    result = InstalledLibrary(folder.absolute())
    if not result.library.exists():
        hint = f"build it: simenv qpi build {folder}"
        raise NotFoundError(f"there is no {result.library}", hint=hint)
    value = {"cflags": result.cflags, "libs": result.libs}
    app.settings_of(context).answer(value, [" ".join([*result.cflags, *result.libs])])


ASK_S = 20.0
_BUILD = "./qfw_build.sh --defw"
# Imported by DEFw itself, and by the services of QFw, all of which its resource manager loads.
MODULES = (
    ("yaml", "PyYAML"),
    *(("netifaces", "netifaces"), ("psutil", "psutil"), ("requests", "requests")),
)


def findings(root: Path, environ: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Yield the findings; the check stops if the folder is no QFw."""
    try:
        paths = installing.layout(root)
    except ConfigError as error:
        yield DoctorFinding("fail", "QFw", error.message, error.hint)
        return
    yield DoctorFinding("ok", "QFw", str(paths.root))
    yield _package()
    yield _link(paths)
    yield _activation(paths)
    yield _command(paths)
    yield _interpreters()
    yield _program(paths, environ)
    yield _modules()
    yield from _environment_findings(paths, environ)


def _install(paths: installing.QfwLayout) -> str:
    return f"simenv qfw install {paths.root}"


def _package() -> DoctorFinding:
    folder = installing.package()
    fault = ""
    if installing.is_editable():
        fault = f"{folder} is an editable installation or a checkout: DEFw cannot import it"
    remedy = "pip install .   # in the clone of simenv, without -e"
    return verdict("package", f"simenv in {folder}", fault, remedy)


def _link(paths: installing.QfwLayout) -> DoctorFinding:
    link, fault = paths.link, ""
    if not link.is_dir():
        fault = f"{link} is not there"
    elif link.resolve() != (SERVICES / installing.MODULE).resolve():
        fault = f"{link} belongs to another installation: {link.resolve()}"
    return verdict("service", str(link), fault, _install(paths))


def _activation(paths: installing.QfwLayout) -> DoctorFinding:
    fault = ""
    if not installing.is_sourced(paths) or not paths.variables.exists():
        fault = "qfw_activate does not set simenv's variables, and QFw activates anew on each node"
    elif not installing.sets_lock(paths):
        fault = f"{paths.variables} lacks the lock around DEFw's sending: applications may hang"
    return verdict("activation", str(paths.variables), fault, _install(paths))


def _program(paths: installing.QfwLayout, environ: Mapping[str, str]) -> DoctorFinding:
    """Check that DEFw's embedded Python has the version of this one, for which simenv is
    installed."""
    program = Path(environ.get("DEFW_PATH") or paths.root / "DEFw") / "src" / "defwp"
    own_version = platform.python_version()
    if not program.exists():
        return verdict("DEFw", "", f"{program} is not there", _BUILD)
    libraries = f"{program.parent}:{sysconfig.get_config_var('LIBDIR')}"
    child_env = {**environ, "LD_LIBRARY_PATH": f"{libraries}:{environ.get('LD_LIBRARY_PATH', '')}"}
    line = [str(program), "--py-version"]
    try:
        done = subprocess.run(
            line, env=child_env, capture_output=True, text=True, timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return verdict("DEFw", "", f"{program} does not run: {error}", _BUILD)
    version = (done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()[:120] or "nothing"])[0]
    fault = ""
    if version != own_version:
        own = f"simenv is installed for {own_version} ({sys.prefix})"
        fault = f"{program} has Python {version}, {own}"
    remedy = "install simenv in the environment DEFw was built in"
    return verdict("DEFw", f"{program}, Python {version}", fault, remedy)


def _command(paths: installing.QfwLayout) -> DoctorFinding:
    own, fault = installing.command(), ""
    if not own.is_safe():
        fault = f"{own.script} does not run while QFw is active: QFw replaces its interpreter"
    return verdict("command", f"{own.script} on {own.interpreter}", fault, _install(paths))


def _interpreters() -> DoctorFinding:
    """Check the names of the interpreter that the activation replaces: QFw looks for DEFw's
    libraries where `python3` leads, and renames all three or fails half-way."""
    folder = installing.command().folder
    real = Path(config.interpreter()).resolve()
    wrong, repairs = [], []
    for name in ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        moved = folder / f"{name}_defw_orig"  # while QFw is active
        path = moved if moved.exists() else folder / name
        if path.exists() and (path.samefile(real) or filecmp.cmp(path, real, shallow=False)):
            continue  # the same, or a copy: `python -m venv --copies`
        wrong.append(f"{path} {f'is {path.resolve()}' if path.exists() else 'is not there'}")
        repairs.append(f"ln -sf {shlex.quote(str(real))} {shlex.quote(str(path))}")
    fault = "; ".join(wrong)
    if fault:
        fault += f"; QFw needs links to {real}, for which simenv is installed"
    return verdict("interpreter", str(real), fault, "; ".join(repairs))


def _modules() -> DoctorFinding:
    missing = {name: pip for name, pip in MODULES if importlib.util.find_spec(name) is None}
    fault = ""
    if missing:
        fault = f"QFw and DEFw import {', '.join(missing)}, not installed in {sys.prefix}"
    remedy = f"pip install {' '.join(missing.values())}"
    return verdict("modules", ", ".join(name for name, _ in MODULES), fault, remedy)


def _environment_findings(
    paths: installing.QfwLayout, environ: Mapping[str, str]
) -> Iterator[DoctorFinding]:
    """Check the settings that the service will read, and whether its environment is up."""
    from simenv.frontends.qfw.environment import read_settings

    service_env = dict(environ)  # `install` would write these settings
    if paths.variables.exists():  # the service reads that file, not this shell's variables
        service_env = {k: v for k, v in environ.items() if not k.startswith("SIMENV_")}
        service_env |= _read_variables(paths.variables)
    try:
        settings = read_settings(service_env)
    except ConfigError as error:
        yield DoctorFinding("fail", "variables", error.message, error.hint)
        return
    shown = [
        f"{name}={service_env[name]}" for name in sorted(service_env) if name.startswith("SIMENV_")
    ]
    yield DoctorFinding("ok", "variables", ", ".join(shown) or "none: the environment `default`")
    if settings.token_file is not None:
        message = "SIMENV_QPM_TOKEN_FILE: calls of revision 1 carry no token, so all are refused"
        yield DoctorFinding("fail", "token", message, _install(paths))
    if settings.private:
        yield DoctorFinding("ok", "environment", "a private one is started with the service")
        return
    service = config.service_file(service_env)
    if service is None:
        service = config.home_root(service_env) / "default" / "connection.json"
    try:
        with simenv.connect(service=service) as client:
            record = client.qpm_with(pool=settings.pool or None).query()
            pools = (record.properties or {}).get("controller", {}).get("pools", {})
    except SimenvError as error:
        yield DoctorFinding("fail", "environment", error.message, "simenv up")
        return
    message = "; ".join(f"{name} by {', '.join(result)}" for name, result in sorted(pools.items()))
    yield DoctorFinding("ok", "environment", f"{record.service_description}: {message}")


def _read_variables(path: Path) -> dict[str, str]:
    """Return NAME=value of the lines that `install` wrote."""
    entries = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        tokens = shlex.split(line, comments=True)
        if len(tokens) == 2 and tokens[0] == "export":
            name, _, value = tokens[1].partition("=")
            entries[name] = value
    return entries


VARIABLE = "DEFW_EXTERNAL_SERVICES_PATH"
MODULE = "svc_simenv_qpm"
qfw = typer.Typer(help="Install and check the simenv service of QFw.")
QfwFolder = Annotated[
    Path | None, typer.Argument(metavar="[QFW_PATH]", help="Folder of QFw; default: QFW_PATH.")
]


@qfw.command()
def install(
    context: typer.Context,
    folder: QfwFolder = None,
    pool: Annotated[str, typer.Option(help="Serve only this pool.")] = "",
    private: Annotated[
        bool, typer.Option(help="Start a private environment that ends with the service.")
    ] = False,
) -> None:
    """Link the service into QFw, set SIMENV_* in its activation, and let `simenv` run beside it.

    Run it before `qfw_activate`, with the Python of QFw's virtual environment.
    """
    settings = {
        "SIMENV_QPM_PRIVATE": "yes" if private else "no",
        "SIMENV_HOME": str(config.home_root()),
    }
    service = None if private else _service(app.settings_of(context))
    if service is not None:
        settings["SIMENV_SERVICE"] = str(service)
    if pool:
        settings["SIMENV_QPM_POOL"] = pool
    built = installing.install(_folder(folder), settings)
    made = [str(path) for path in built]
    app.settings_of(context).answer(
        {"made": made, "variables": settings},
        (
            *made,
            f"next: simenv up; then: simenv qfw check {_folder(folder)}",
            f"then: qfw_setup.sh --services-config {made[-1]}",
        ),
    )


@qfw.command()
def check(context: typer.Context, folder: QfwFolder = None) -> None:
    """Check that QFw loads the service and reaches an environment.

    The exit code is 1 if something needs repair.
    """
    report(context, findings(_folder(folder), os.environ))


@qfw.command()
def uninstall(context: typer.Context, folder: QfwFolder = None) -> None:
    """Remove from QFw what `install` added."""
    removed = [str(path) for path in installing.uninstall(_folder(folder))]
    lines = removed or ["simenv is not installed there"]
    app.settings_of(context).answer({"gone": removed}, lines)


@qfw.command()
def path(
    context: typer.Context,
    export: Annotated[
        bool,
        typer.Option(help="Print lines for a shell: this variable, and the lock on PYTHONPATH."),
    ] = False,
) -> None:
    """Print the folder of svc_simenv_qpm, for DEFW_EXTERNAL_SERVICES_PATH."""
    lines = [str(SERVICES)]
    if export:
        folders = ((VARIABLE, SERVICES), ("PYTHONPATH", STARTUP))
        lines = [installing.prepended(name, folder) for name, folder in folders]
    value = {"variable": VARIABLE, "path": str(SERVICES), "module": MODULE}
    app.settings_of(context).answer(value, lines)


def _service(common: app.Settings) -> Path | None:
    """Return the absolute path of the connection file: DEFw changes its folder."""
    result = common.service or config.service_file()
    if result is None and common.name:
        result = config.connection_file(common.name)
    return None if result is None else result.expanduser().absolute()


def _folder(folder: Path | None) -> Path:
    named = folder or Path(os.environ.get("QFW_PATH", ""))
    if named == Path():
        hint = "name it as an argument, or set QFW_PATH"
        raise ConfigError("the folder of QFw is not given", hint=hint)
    return named
