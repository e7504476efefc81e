"""Programs of `tests/support/qpi`, compiled with the C library or together with its sources."""

import os
import subprocess
from pathlib import Path

import pytest
from packages import bring

from simenv.client.client import Client
from simenv.frontends import qpi
from simenv.frontends.qpi import InstalledLibrary

HERE = Path(__file__).parent / "qpi"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
SANITIZED = {"ASAN_OPTIONS": "abort_on_error=0:exitcode=99", "UBSAN_OPTIONS": "exitcode=99"}


def skip_without_libcurl() -> None:
    """Get the headers of libcurl. CI must not skip this."""
    probe = ["cc", "-E", "-include", "curl/curl.h", "-x", "c", os.devnull]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return
    why = bring("system_packages.sh", qpi.LIBCURL_PACKAGE)
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


def built(folder: Path) -> InstalledLibrary:
    """The library; skips the test where it cannot be built."""
    skip_without_libcurl()
    return qpi.build(folder)


def token(client: Client) -> str:
    """A token of the client's user, for SIMENV_TOKEN."""
    return client.tokens.add(purpose="test of the C library").secret


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
    skip_without_libcurl()
    program = folder / f"{name}-sanitized"
    argv = ["cc", *qpi.FLAGS, *SANITIZERS, *qpi.definitions(), *qpi.include_flags()]
    argv += [str(HERE / f"{name}.c"), *map(str, qpi.sources()), *qpi.LIBRARIES, "-o", str(program)]
    run(argv)
    return program


def environ(**more: str) -> dict[str, str]:
    """For a sanitized program."""
    return {**os.environ, **SANITIZED, **more}
