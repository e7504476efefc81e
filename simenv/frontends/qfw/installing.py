"""Installation of simenv into a QFw: links and files with fixed names, so that they can be removed.

QFw's activation sets `DEFW_EXTERNAL_SERVICES_PATH` to its own services, and its launcher activates
anew in a fresh shell on each node: so the service folder is linked next to QFw's own, and the
variables of simenv are in a file that the activation sources. One of them is PYTHONPATH, by which
each process of DEFw gets the send lock, services and applications (`startup/sitecustomize.py`).

The activation also replaces `python`, `python3` and `python3.X` of the virtual environment by
DEFw's program, for every shell, until the deactivation. So the command `simenv` is given an
interpreter with a name of its own beside them, and the service processes that it starts run on it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import msgspec

import simenv
from simenv.config import interpreter
from simenv.errors import ConfigError
from simenv.files import replacing
from simenv.frontends.qfw import SERVICES, STARTUP

MODULE = "svc_simenv_qpm"
INTERPRETER = "simenv-python"
_SHEBANG = re.compile(r"(?<=/)(?:simenv-)?python[\d.]*(?=[\"\s])")
VARIABLES = "qfw_simenv_env.sh"
SOURCED = "qfw_set_envvars.sh"  # sourced by qfw_activate, which QFw's configurator writes
SERVICES_FILE = "qfw_services_simenv.yaml"
MARK = "# simenv qfw install"
_YAML = """\
# Written by `simenv qfw install`: qfw_setup.sh --services-config {path}
services:
  - name: simenv
    module: {module}
    load-modules: {module},api_qpm,api_events
    agent-prefix: qpm_simenv
    agent-type: service
    target: group1-head
    assigned-hosts: group1
    assigned-hosts-env: QFW_QPM_ASSIGNED_HOSTS
"""


class InstalledCommand(msgspec.Struct, frozen=True):
    """The command `simenv` of a virtual environment. `folder`: where its programs are."""

    folder: Path

    @property
    def script(self) -> Path:
        return self.folder / "simenv"

    @property
    def interpreter(self) -> Path:
        """Interpreter that the activation of QFw leaves alone."""
        return self.folder / INTERPRETER

    def is_safe(self) -> bool:
        """Return whether the command works while QFw is active."""
        return self.interpreter.exists() and INTERPRETER in _head(self.script)

    def run_on(self, name: str) -> None:
        """Replace the interpreter in the first lines of the script."""
        if self.script.exists():
            text = self.script.read_text(encoding="utf-8")
            head = _head(self.script)
            _write(self.script, _SHEBANG.sub(name, head, count=1) + text[len(head) :])


def command() -> InstalledCommand:
    """The command of this interpreter's environment."""
    return InstalledCommand(Path(sysconfig.get_path("scripts")))


class QfwLayout(msgspec.Struct, frozen=True):
    """Paths of a QFw."""

    root: Path

    @property
    def link(self) -> Path:
        return self.root / "services" / MODULE

    @property
    def variables(self) -> Path:
        return self.root / "environment" / VARIABLES

    @property
    def sourced(self) -> Path:
        return self.root / "environment" / SOURCED

    @property
    def services_file(self) -> Path:
        return self.root / "setup" / SERVICES_FILE


def layout(root: Path) -> QfwLayout:
    """Paths below `root`. Raises ConfigError if it is no QFw of revision 1."""
    result = QfwLayout(root.expanduser().absolute())
    needed = ("services", "service-apis/api_qpm", "setup", f"environment/{SOURCED}")
    missing = [name for name in needed if not (result.root / name).exists()]
    if missing:
        message = f"{result.root} is no QFw: it has no {', '.join(missing)}"
        raise ConfigError(message, hint="the folder that QFW_PATH names, a checkout of openQSE/QFw")
    return result


def install(root: Path, exports: Mapping[str, str]) -> list[Path]:
    """Link the service folder, write the variables `exports` and the services file, make the
    activation source the variables, and let the command `simenv` run on an interpreter of its own.
    Idempotent; returns the installed paths."""
    places = layout(root)
    if is_editable():
        message = f"simenv is installed in editable form, from {package()}: DEFw cannot import it"
        hint = "pip install /path/to/clone, without -e, in the virtual environment that QFw uses"
        raise ConfigError(message, hint=hint)
    _link(places.link)
    own = command()
    _copy_interpreter(own.interpreter)
    own.run_on(INTERPRETER)
    exports = {"SIMENV_PYTHON": str(own.interpreter), **exports}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(exports.items())]
    lines.append(prepended("PYTHONPATH", STARTUP))
    _write(places.variables, "\n".join([MARK, *lines, ""]))
    _write(places.services_file, _YAML.format(path=places.services_file, module=MODULE))
    if not is_sourced(places):
        text = places.sourced.read_text(encoding="utf-8")
        line = f'source "${{QFW_PATH}}/environment/{VARIABLES}"  {MARK}\n'
        _write(places.sourced, text + ("" if text.endswith("\n") else "\n") + line)
    return [
        places.link, own.script, own.interpreter, places.variables, places.sourced,
        places.services_file,
    ]  # fmt: skip


def prepended(name: str, folder: Path) -> str:
    """Return the line of a shell that puts a folder before the others of a variable."""
    return f'export {name}={shlex.quote(str(folder))}"${{{name}:+:${name}}}"'


def uninstall(root: Path) -> list[Path]:
    """Remove the links and files of `install`; returns the removed paths."""
    places = layout(root)
    gone = []
    for path in (places.link, places.variables, places.services_file):
        if path.is_symlink() if path == places.link else path.is_file():
            path.unlink()
            gone.append(path)
    if is_sourced(places):
        lines = places.sourced.read_text(encoding="utf-8").splitlines(keepends=True)
        _write(places.sourced, "".join(line for line in lines if MARK not in line))
        gone.append(places.sourced)
    own = command()
    if own.interpreter.is_symlink() or own.interpreter.exists():
        own.run_on("python")
        own.interpreter.unlink()
        gone += [own.script, own.interpreter]
    return gone


def sets_lock(places: QfwLayout) -> bool:
    """Return whether the variables bring the send lock of this installation."""
    text = places.variables.read_text(encoding="utf-8") if places.variables.exists() else ""
    return prepended("PYTHONPATH", STARTUP) in text.splitlines()


def is_sourced(places: QfwLayout) -> bool:
    """Return whether the activation reads the variables."""
    return MARK in places.sourced.read_text(encoding="utf-8")


def package() -> Path:
    """Folder from which simenv is imported."""
    return Path(simenv.__file__).parents[1]


def is_editable() -> bool:
    """Return whether simenv runs from a checkout: DEFw searches site-packages alone, and reads no
    .pth files there."""
    homes = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return package().resolve() not in homes


def _copy_interpreter(path: Path) -> None:
    """Make a link to the interpreter behind all links; a copy, if it lies in the same folder, where
    the activation would rename it."""
    real = Path(interpreter()).resolve()
    if path.exists() and path.samefile(real):
        return
    path.unlink(missing_ok=True)
    try:
        if real.parent != path.parent.resolve():
            path.symlink_to(real)
        else:
            shutil.copy2(real, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _head(script: Path) -> str:
    """The first two lines: of a long path they are a call of /bin/sh."""
    if not script.exists():
        return ""
    return "".join(script.read_text(encoding="utf-8").splitlines(keepends=True)[:2])


def _link(path: Path) -> None:
    target = SERVICES / MODULE
    if path.is_symlink():
        if path.resolve() == target.resolve():
            return
        path.unlink()  # of another installation
    elif path.exists():
        raise ConfigError(f"{path} already exists", hint=f"move it: mv {path} {path}.old")
    path.symlink_to(target)


def _write(path: Path, text: str) -> None:
    """Replace a file atomically and keep its mode."""
    try:
        with replacing(path, mode=0o666) as out:
            out.write(text.encode())
            if path.exists():
                os.fchmod(out.fileno(), path.stat().st_mode & 0o777)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    message = f"{path} cannot be written: {error.strerror or error}"
    return ConfigError(message, hint="use a QFw and a virtual environment that you can write to")
