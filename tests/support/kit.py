"""Plugin folders, of the reference plugin or of that one with a defect, simenv's own QPM with a
defect, and reports of the kit on them."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import qpm_defects

from simenv.client.client import Client
from simenv.qpm_check.checks import rows
from simenv.qpm_check.plugin import PluginTarget
from simenv.qpm_check.runner import LIMIT_S, PROBE_S, CheckReport, Options, check
from simenv.qpm_check.target import CheckTarget, Objects

PLUGIN = Path(__file__).parent / "qpm_plugins" / "svc_reference"
SHORT_S = 0.12  # a long circuit of the tests; ten of them end within their waits
LONGER_S = 1.0  # where every row must pass, and what runs be seen running


def assembled(parent: Path, defect: str = "") -> Path:
    """The folder of the reference plugin, with a class of `defects.py` where one is named."""
    package = parent / "plugin" / "services" / "svc_reference"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PLUGIN, package, ignore=ignored, dirs_exist_ok=True)
    name = "".join(word.title() for word in defect.split("_"))
    home = f"from .defects import {name} as Base" if defect else "from .base import QPM as Base"
    (package / "svc_qpm.py").write_text(f"{home}\n\n\nclass QPM(Base):\n    pass\n")
    return parent / "plugin"


def own_qpm(client: Client, defect: str) -> CheckTarget:
    """simenv's own QPM in this process, with a class of `qpm_defects`."""
    return Objects("our own", partial(_open, client, defect))


@contextmanager
def _open(client: Client, defect: str, revision: int) -> Iterator[Callable[[], Any]]:
    import simenv

    with simenv.connect(service=client.service) as own:
        qpm = own.qpm_with(reservations="required")
        name = "".join(word.title() for word in defect.split("_"))
        qpm.__class__ = type(name, (getattr(qpm_defects, name), type(qpm)), {})
        yield lambda: qpm


def checked(
    target: Path | CheckTarget, *only: str, revisions: tuple[int, ...] = (1, 2),
    wait_s: float = 30.0, token: str = "", long_s: float = SHORT_S, probe_s: float = PROBE_S,
) -> CheckReport:  # fmt: skip
    """A report on a target, or on a plugin folder; `token`: what it asks for."""
    options = Options(
        only=only, revisions=revisions, long_s=long_s, limit_s=max(LIMIT_S, 2 * wait_s),
        wait_s=wait_s, probe_s=probe_s,
    )  # fmt: skip
    if isinstance(target, Path):
        outage = FileOutage(target / "outage")
        environ = {"REFERENCE_OUTAGE": str(outage.path)}
        target = PluginTarget("a plugin", target, environ, token, outage=outage)
    return check(target, rows(), options)


class FileOutage:
    """The machine of the reference plugin is away while a file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        self.path.touch()

    def end(self) -> None:
        self.path.unlink()
