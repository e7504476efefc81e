"""The version of this package, and the commit it was built from."""

import subprocess
from pathlib import Path

__version__ = "0.1.0"

# `git archive`, of which releases are built, puts the commit here (.gitattributes); so does
# `hatch_build.py` in a wheel that is built in a clone.
_COMMIT = "$Format:%h$"


def build() -> str:
    """Return the version with the commit as local part (PEP 440), as `0.1.0+g1aece0b25`; `.dirty`
    where files of a checkout differ from its commit. The version alone where no commit is known."""
    commit = _COMMIT if "$" not in _COMMIT else described(Path(__file__).resolve().parents[1])
    return f"{__version__}+g{commit.replace('-', '.')}" if commit else __version__


def described(root: Path) -> str:
    """Return the commit of a checkout, with `-dirty` behind it where files differ; "" where the
    folder is none, or git is missing or refuses it."""
    if not (root / ".git").exists():
        return ""
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
