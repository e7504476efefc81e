"""Programs of `tests/support/qpi`, compiled with the C library or together with its sources."""

import os
import subprocess
from pathlib import Path

from simenv.frontends.qpi import FLAGS, InstalledLibrary, definitions, include_flags, sources

HERE = Path(__file__).parent / "qpi"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
SANITIZED = {"ASAN_OPTIONS": "abort_on_error=0:exitcode=99", "UBSAN_OPTIONS": "exitcode=99"}


def run(argv: list[str], **more: object) -> str:
    """Standard output of a program that succeeds."""
    done = subprocess.run(argv, capture_output=True, check=False, timeout=280, **more)  # type: ignore[call-overload]
    decoded = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, f"{argv[0]} ended with {done.returncode}:\n{decoded[-4000:]}"
    return str(done.stdout.decode())


def linked(source: Path, library: InstalledLibrary, folder: Path) -> Path:
    """A program as a user compiles it."""
    program = folder / source.stem
    flags = (*library.cflags, *library.libs)
    run(["cc", *WARNINGS, str(source), *flags, "-lm", "-o", str(program)])
    return program


def sanitized(name: str, folder: Path) -> Path:
    """A program of this folder with all sources of the library, address and undefined behaviour
    checked."""
    program = folder / f"{name}-sanitized"
    argv = ["cc", *FLAGS, *SANITIZERS, *definitions(), *include_flags()]
    argv += [str(HERE / f"{name}.c"), *map(str, sources()), "-ldl", "-lm", "-o", str(program)]
    run(argv)
    return program


def environ(**more: str) -> dict[str, str]:
    """For a sanitized program."""
    return {**os.environ, **SANITIZED, **more}


class Lines:
    """A process of `drill lines`."""

    def __init__(self, program: Path, service: str, *, uid: int | None = None, **more: str) -> None:
        """`uid`: of another user, as whom root starts it."""
        other = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        self.process = subprocess.Popen(
            [str(program), "lines"], text=True, cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environ(SIMENV_SERVICE=service, **more), **other,  # type: ignore[arg-type]
        )  # fmt: skip

    def do(self) -> str:
        """Status of a circuit, and the error's message."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Expect that nothing was found by the sanitizers."""
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0
