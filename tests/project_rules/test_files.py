"""Rules about files that no linter checks."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

from source_trees import parsed
from spread import APART, DRILLS, LONG, SMOKE

ROOT = Path(__file__).parents[2]
OURS = ("simenv", "simulators", "launcher", "noise_models")
OURS += ("tests", "bench", "testbed", "examples", "scripts")
# Promises instead of code, and places that only one machine has.
UNWANTED = re.compile(
    "|".join(["TO" + "DO", "FIX" + "ME", r"# *XX" + "X", "NotImplemented" + "Error", "/wo" + "rk/"])
)


def tracked() -> list[Path]:
    """Every file that is or would be in a checkout."""
    if shutil.which("git"):
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return sorted({ROOT / name for name in listed.stdout.splitlines()})
    return sorted(path for top in OURS for path in (ROOT / top).rglob("*") if path.is_file())


FILES = [path for path in tracked() if path.is_file()]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_contain_no_open_todos_or_machine_specific_paths() -> None:
    for path in FILES:
        if path.suffix in {".py", ".md", ".toml", ".sh", ".cff", ""} and path.name != "LICENSE":
            match = UNWANTED.search(path.read_text())
            assert match is None, f"{name(path)}: {match.group() if match else ''}"


def test_files_with_groups_or_an_order_of_their_own_exist() -> None:
    tests = (nodeid.partition("::")[0] for nodeid in (*DRILLS, *SMOKE))
    names = (*LONG, *APART, *tests)
    assert [path for path in names if not (ROOT / path).exists()] == []


def test_scripts_are_executable() -> None:
    for path in [ROOT / ".ci" / "run", *(ROOT / "scripts").glob("*.sh")]:
        assert path.stat().st_mode & 0o111, name(path)


MAX_PARAMETERS = 12
KERNELS = re.compile(r"kernel|deferred|device_function|inline_function|intrinsic")  # decorators
LONG_SIGNATURES = {  # options by keyword, and signatures that others fix
    "launcher/pmix/tool.py": {"_event"},  # PMIx calls it
    "simenv/client/client.py": {"submit", "submit_many"},
    "simenv/client/environment.py": {"reserve"},
    "simenv/frontends/pennylane/device.py": {"__init__"},
    "simenv/gateway/native/tasks.py": {"list_tasks"},  # parameters of the query
    "simenv/qpm_check/fake_defw/fakes.py": {"resolve_services"},  # DEFw's
}


def test_functions_have_at_most_12_parameters() -> None:
    """Commands are left out, whose parameters are their options, and compiled functions, which take
    arrays one by one."""
    long = {}
    for package in ("launcher", "noise_models", "simenv", "simulators"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith("simenv/cli/"):
                continue
            for function in ast.walk(parsed(path)):
                if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if function.name in LONG_SIGNATURES.get(name, ()):
                    continue
                arguments = function.args
                names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                count = sum(each.arg not in ("self", "cls") for each in names)
                decorators = map(
                    ast.unparse, function.decorator_list if count > MAX_PARAMETERS else ()
                )
                if count > MAX_PARAMETERS and not any(map(KERNELS.search, decorators)):
                    long[f"{name}:{function.name}"] = count
    assert not long
