"""Plugin folders (the honest one, and that one with a defect), and reports of the kit on them."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

from simenv.qpm_check.checks import rows
from simenv.qpm_check.plugin import PluginTarget
from simenv.qpm_check.runner import LIMIT_S, PROBE_S, CheckReport, Options, check

PLUGINS = Path(__file__).parent / "qpm_plugins"
SHORT_S = 0.2  # a long circuit of the tests
LONGER_S = 1.0  # where every row must pass, and what runs be seen running


def class_name(defect: str) -> str:
    return "".join(word.title() for word in defect.split("_"))


def defects() -> set[str]:
    """Names of all defects: classes of `broken/defects.py`, and modules that patch another one."""
    modules = {path.stem for path in (PLUGINS / "broken").glob("*.py")} - {"defects"}
    tree = ast.parse((PLUGINS / "broken" / "defects.py").read_text())
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    classes = {node.name for node in nodes if ast.unparse(node.bases[0]) == "HonestQPM"}
    return modules | {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in classes}


def assembled(parent: Path, defect: str = "") -> Path:
    """The folder of the honest plugin, with a defect where one is named."""
    folder = parent / "plugin"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PLUGINS / "honest", folder, ignore=ignored, dirs_exist_ok=True)
    package = folder / "services" / "svc_honest"
    module = PLUGINS / "broken" / f"{defect}.py"
    if defect and module.exists():
        shutil.copyfile(module, package / "svc_qpm.py")
    elif defect:
        shutil.copyfile(PLUGINS / "broken" / "defects.py", package / "defects.py")
        name = class_name(defect)
        text = f"from .defects import {name}\n\n\nclass QPM({name}):\n    pass\n"
        (package / "svc_qpm.py").write_text(text)
    return folder


def checked(
    folder: Path,
    *only: str,
    revisions: tuple[int, ...] = (1, 2),
    wait_s: float = 30.0,
    token: str = "",
    long_s: float = SHORT_S,
    probe_s: float = PROBE_S,
) -> CheckReport:
    """A report on a plugin folder; `token`: what it asks for."""
    options = Options(
        only=only,
        revisions=revisions,
        long_s=long_s,
        limit_s=max(LIMIT_S, 2 * wait_s),
        wait_s=wait_s,
        probe_s=probe_s,
    )
    outage = FileOutage(folder / "outage")
    environ = {"HONEST_OUTAGE": str(outage.path)}
    return check(PluginTarget("a plugin", folder, environ, token, outage=outage), rows(), options)


class FileOutage:
    """The machine of the honest plugin is away while a file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        self.path.touch()

    def end(self) -> None:
        self.path.unlink()
