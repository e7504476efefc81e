"""An interpreter that has all our packages, and no program of theirs: no mpirun, no prte."""

import site
import subprocess
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

Simenv = Callable[..., subprocess.CompletedProcess[str]]


def interpreter(folder: Path, *others: Path) -> Path:
    """An interpreter made in `folder` that has all our packages, and those in `others`."""
    venv.create(folder / "venv", symlinks=True)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    entries = [path for path in site.getsitepackages() if Path(path).is_dir()]
    entries += map(str, others)
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in entries)
    (packages / "all.pth").write_text(lines)
    return folder / "venv" / "bin" / "python"


def command_line(folder: Path, environ: Mapping[str, str]) -> Simenv:
    """`simenv` run in `folder` by an interpreter made there; `environ` is all it gets."""
    python = interpreter(folder)
    program = "from simenv.cli.entry import main; main()"

    def simenv(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [python, "-P", "-c", program, *words]
        return subprocess.run(
            argv, env=dict(environ), cwd=folder, capture_output=True, text=True, check=False
        )

    return simenv
