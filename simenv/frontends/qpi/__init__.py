"""QPI: a C library for compiled programs, which translates calls to the HTTP API of a gateway.

The header is `include/simenv_qpi.h`, the Fortran module `fortran/simenv_qpi.f90`; `build` compiles
the library with the system's C compiler, and installs it in a folder with its header and a
pkg-config file. It needs the headers of libcurl.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from simenv._version import __version__
from simenv.errors import ConfigError
from simenv.frontends import c_compiler

__all__ = ["InstalledLibrary", "build"]

HERE = Path(__file__).parent
ABI = 1  # QPI_ABI_VERSION
LIBRARY = "libsimenv_qpi.so"
FLAGS = (*c_compiler.FLAGS, "-fvisibility=hidden")
LIBRARIES = ("-lcurl", "-lm")
LIBCURL_PACKAGE = "libcurl4-openssl-dev"  # of Debian
_PKG_CONFIG = """\
prefix={folder}

Name: simenv_qpi
Description: Quantum circuits on a simenv environment, for compiled programs
Version: {version}
Cflags: -I${{prefix}}/include
Libs: -L${{prefix}}/lib -Wl,-rpath,${{prefix}}/lib -lsimenv_qpi
"""


class InstalledLibrary(msgspec.Struct, frozen=True):
    """Built library, with the paths that a program is compiled with."""

    folder: Path

    @property
    def library(self) -> Path:
        return self.folder / "lib" / LIBRARY

    @property
    def fortran(self) -> Path:
        """Fortran module, to be compiled together with a program."""
        return self.folder / "include" / "simenv_qpi.f90"

    @property
    def pkg_config(self) -> Path:
        """Folder for PKG_CONFIG_PATH."""
        return self.folder / "lib" / "pkgconfig"

    @property
    def cflags(self) -> tuple[str, ...]:
        return (f"-I{self.folder / 'include'}",)

    @property
    def libs(self) -> tuple[str, ...]:
        folder = self.folder / "lib"
        return (f"-L{folder}", f"-Wl,-rpath,{folder}", "-lsimenv_qpi")


def sources() -> list[Path]:
    """C files of the library."""
    return sorted((HERE / "src").rglob("*.c"))


def definitions() -> tuple[str, ...]:
    """Compiler definitions with the facts of this installation."""
    return (f'-DQPI_PACKAGE_VERSION="{__version__}"',)


def include_flags() -> tuple[str, ...]:
    return (f"-I{HERE / 'include'}", f"-I{HERE / 'src'}")


def build(folder: Path, compiler: str = "", extra: Sequence[str] = ()) -> InstalledLibrary:
    """Compile and install below `folder`: include, lib, lib/pkgconfig. `compiler`: default CC, else
    cc. `extra`: further flags, for example of a sanitizer. Raises ConfigError if there is no
    compiler or no libcurl, or with the compiler's message."""
    compiler = c_compiler.find_compiler(compiler)
    installed = InstalledLibrary(folder.absolute())
    library = installed.library
    for part in (installed.folder / "include", installed.pkg_config):
        part.mkdir(parents=True, exist_ok=True)
    versioned = library.with_name(f"{LIBRARY}.{ABI}")
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        built = Path(scratch) / LIBRARY
        argv = [compiler, *FLAGS, *extra, *definitions(), *include_flags()]
        argv += ["-shared", f"-Wl,-soname,{versioned.name}", "-Wl,-z,defs", "-o", str(built)]
        _compile([*argv, *map(str, sources()), *LIBRARIES])
        os.replace(built, versioned)  # a running program keeps its library
        link = Path(scratch) / "link"
        link.symlink_to(versioned.name)
        os.replace(link, library)
    shutil.copyfile(HERE / "include" / "simenv_qpi.h", folder / "include" / "simenv_qpi.h")
    shutil.copyfile(HERE / "fortran" / "simenv_qpi.f90", installed.fortran)
    settings = _PKG_CONFIG.format(folder=installed.folder, version=__version__)
    (installed.pkg_config / "simenv_qpi.pc").write_text(settings)
    return installed


def _compile(argv: Sequence[str]) -> None:
    """Run the compiler. Raises ConfigError, for a machine without libcurl with its package."""
    try:
        c_compiler.compile_sources(argv)
    except ConfigError as error:
        if "curl/curl.h" not in error.message and "-lcurl" not in error.message:
            raise
        hint = f"on Debian: sudo apt-get install -y {LIBCURL_PACKAGE}"
        raise ConfigError(f"{argv[0]} finds no headers of libcurl", hint=hint) from error
