"""Check the licences of all locked packages by the texts that the packages carry.

    python scripts/licenses.py                every package of every file in requirements/
    python scripts/licenses.py --notice FILE  write FILE: the installed packages with their texts

Metadata is not believed: a package may name no licence, or another one than that of its files. A
text is recognised by phrases of its licence. Ends with 1 where a text has a licence that
`requirements/licenses.toml` does not allow, is not recognised, or is missing, and where that file
names what no lock file has. Texts come from the installed packages of .venv; those of packages that
are not installed there are downloaded once and stored in .venv/var/licenses.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
POLICY = LOCKS / "licenses.toml"
FORMAT = 1  # of the stored texts
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_NAMED = re.compile(
    r"(licen[cs]e|copying|notice|copyright|unlicense|patents|\beula)", re.IGNORECASE
)
_NO_TEXTS = (
    ".py", ".pyc", ".pyi", ".so", ".svg", ".js", ".css", ".html", ".png", ".json", ".h", ".hpp",
)  # fmt: skip
# Names of texts that need not have a licence.
_NO_LICENCE = re.compile(r"(notice|copyright|authors|patents)[^/]*$", re.IGNORECASE)

# Phrases of lower-case texts with single spaces. Several licences may stand in one text. Copyleft
# licences are known by title and date: other licences mention them by name alone.
_OF_GRANTS = r"permission to use, copy, modify,? and(?:/or)? distribute this software"
_OF_MIT = "permission is hereby granted, free of charge, to any person obtaining"
_PHRASES: dict[str, tuple[str, ...]] = {
    "AGPL-3.0": (
        "gnu affero general public license version 3, 19",
        "terms of the gnu affero general public license",
        r"\bagpl-?v?3",
    ),
    "GPL-3.0": (
        "gnu general public license version 3, 29",
        "terms of the gnu general public license",
        r"\bgpl-?v?3\b",
    ),
    "GPL-2.0": ("gnu general public license version 2, june", r"\bgpl-?v?2\b"),
    "LGPL-3.0": ("gnu lesser general public license version 3, 29", r"\blgpl-?v?3"),
    "LGPL-2.1": ("gnu (?:lesser|library) general public license version 2", r"\blgpl-?v?2"),
    "SSPL-1.0": ("server side public license",),
    "BUSL-1.1": ("business source license",),
    "CC-BY-NC": ("attribution-noncommercial",),
    "CC-BY-SA": ("attribution-sharealike",),
    "EUPL-1.2": ("european union public licen[cs]e",),
    "CDDL-1.0": ("common development and distribution license",),
    "EPL": ("eclipse public license",),
    "MPL-2.0": (r"mozilla public license,? (?:version 2|v\. 2)",),
    "Apache-2.0": (r"apache license,? version 2\.0", "licensed under the apache license"),
    "LLVM-exception": (r"llvm exceptions to the apache 2\.0 license",),
    "MIT": (f"{_OF_MIT} a copy", "mit license"),
    "BSD": ("redistribution and use in source and binary forms",),
    "ISC": (f"{_OF_GRANTS} for any purpose with or without fee",),
    "HPND": (f"{_OF_GRANTS} and its documentation for any purpose",),
    "PSF-2.0": ("python software foundation license", "psf license agreement"),
    "Zlib": ("this software is provided 'as-is', without any express or implied warranty",),
    "Unlicense": ("this is free and unencumbered software released into the public domain",),
    "CC0-1.0": (r"cc0 1\.0 universal",),
    "CC-BY-4.0": (r"attribution 4\.0 international",),
    "OFL-1.1": ("sil open font license",),
    "Unicode": (r"unicode(?:, inc\.)? license", f"{_OF_MIT} data files"),
    "BSL-1.0": ("boost software license",),
    "GCC-exception": ("gcc runtime library exception",),
    "choice": ("under the terms of .?either.? of the licenses found in",),  # of other files
}
_MARKS = re.compile(
    r'"|^\s*(?:\*|#|//)', re.MULTILINE
)  # quotes, and the beginning of lines of comments
_PATTERNS = {name: re.compile("|".join(each)) for name, each in _PHRASES.items()}
_COPYLEFT = {"AGPL-3.0", "GPL-3.0", "GPL-2.0", "LGPL-3.0", "LGPL-2.1"}


class Texts(NamedTuple):
    """Texts about the licence of one release, by their path in its archive."""

    name: str
    version: str
    by_path: dict[str, str]


def licences_of(text: str) -> set[str]:
    """Licences whose phrases a text has."""
    plain = " ".join(_MARKS.sub(" ", text.lower()).split())
    found = {name for name, pattern in _PATTERNS.items() if pattern.search(plain)}
    if "MPL-2.0" in found and not re.search(r"licence|license version [23], (?:29|june)", plain):
        found -= _COPYLEFT  # its secondary licences
    return found


def problems_of(texts: Texts, policy: dict[str, object]) -> list[str]:
    """Reasons why a package is not accepted."""
    allowed = set(_words(policy["allowed"]))
    entry = _table(policy["packages"]).get(texts.name, {})
    allowed |= set(_words(_table(entry).get("allowed", [])))
    read = set(_words(_table(entry).get("read", [])))
    result, recognised = [], False
    for path, text in sorted(texts.by_path.items()):
        found = licences_of(text)
        recognised = recognised or bool(found)
        if wrong := sorted(found - allowed):
            result.append(f"{path} has {', '.join(wrong)}")
        elif not found and Path(path).name not in read and not _NO_LICENCE.search(path):
            result.append(f"{path} has no licence that is recognised")
    if not recognised and not _table(entry).get("licence"):
        result.append("it carries no text of a licence")
    return result


def _words(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(each) for each in value]


def _table(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


def locked(path: Path) -> list[tuple[str, str]]:
    """Names, normalized, and versions of a lock file."""
    return sorted({(name, version) for name, version, _ in _pins(path.read_text())})


def _pins(text: str) -> list[tuple[str, str, str]]:
    """Name, version and lines of each entry of a lock file."""
    begins = list(_PINNED.finditer(text))
    ends = [each.start() for each in begins[1:]] + [len(text)]
    return [
        (_normal(begin[1]), begin[2], text[begin.start() : end])
        for begin, end in zip(begins, ends, strict=True)
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_text(path: str) -> bool:
    """Whether a member of an archive is a text about a licence: by its name, or by its folder."""
    name = path.rpartition("/")[2]
    if name.lower().endswith(_NO_TEXTS):
        return False
    folder = path.rpartition("/")[0].lower()
    return bool(_NAMED.search(name)) or folder.endswith((".dist-info/licenses", "/licenses"))


def installed() -> dict[tuple[str, str], Texts]:
    """Texts of the packages of this environment."""
    result = {}
    for each in importlib.metadata.distributions():
        key = _normal(each.metadata["Name"]), each.version
        paths = [path for path in each.files or () if _is_text(path.as_posix())]
        read = {path.as_posix(): _read(Path(str(path.locate()))) for path in paths}
        result[key] = Texts(*key, {path: text for path, text in read.items() if text})
    return result


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


class TextStore:
    """Texts of releases that are not installed, each downloaded once into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str, version: str) -> Texts | None:
        path = self._path(name, version)
        if not path.exists():
            return None
        stored = json.loads(path.read_text())
        return Texts(name, version, stored["texts"]) if stored["format"] == FORMAT else None

    def download_together(self, lock: Path, wanted: set[tuple[str, str]]) -> None:
        """Download those of a lock file that this Python and machine take, in one call of pip; what
        fails stays out."""
        pins = [each for each in _pins(lock.read_text()) if each[:2] in wanted]
        with tempfile.TemporaryDirectory() as folder:
            requirements, archives = Path(folder, "pins.txt"), Path(folder, "archives")
            requirements.write_text("\n".join(text for _, _, text in pins))
            archives.mkdir()
            _download(archives, "--require-hashes", "--requirement", str(requirements))
            for archive in archives.iterdir():
                named = _ARCHIVE.match(archive.name)
                if named is not None and (key := (_normal(named[1]), named[2])) in wanted:
                    self._put(*key, archive)

    def download(self, name: str, version: str) -> Texts:
        """Download one release, of whichever Python. Raises OSError."""
        said = ""
        with tempfile.TemporaryDirectory() as folder:
            for python in ("", *_PYTHONS):
                other = ("--only-binary=:all:", "--python-version", python) if python else ()
                said = _download(Path(folder), *other, f"{name}=={version}")
                if not said:
                    return self._put(name, version, *Path(folder).iterdir())
        raise OSError(said)

    def _path(self, name: str, version: str) -> Path:
        return self._folder / f"{name}-{version}.json"

    def _put(self, name: str, version: str, archive: Path) -> Texts:
        members = _members(archive)
        texts = {
            path: read().decode("utf-8", "replace") for path, read in members if _is_text(path)
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(name, version).write_text(json.dumps({"format": FORMAT, "texts": texts}))
        return Texts(name, version, texts)


_ARCHIVE = re.compile(r"(.+?)-([^-]+)(?:-.*\.whl|\.tar\.gz|\.zip)$")  # name and version
_PYTHONS = ("3.13", "3.12", "3.11")


def _download(folder: Path, *what: str) -> str:
    """Download archives without what they need; return pip's last line where that fails."""
    words = (
        "-m",
        "pip",
        "download",
        "-qq",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    )
    done = subprocess.run(
        (sys.executable, *words, "-d", str(folder), *what),
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2] or "pip failed"


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if archive.suffix == ".whl" or archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/"):
                    yield name, lambda name=name: wheel.read(name)  # type: ignore[misc]
        return
    with tarfile.open(archive) as sdist:
        for member in sdist:
            data = sdist.extractfile(member) if member.isfile() else None
            if data is not None:
                yield member.name, data.read


def notice(packages: Iterable[Texts]) -> str:
    """NOTICE of packages: their licences, and all texts."""
    parts = [
        "The packages of Python that are installed here, each with the texts about its licence\n"
        "as its archive has them.\n"
    ]
    for texts in packages:
        found = sorted(set().union(*map(licences_of, texts.by_path.values())))
        parts.append(
            f"{'=' * 80}\n{texts.name} {texts.version}: {', '.join(found) or 'see its pages'}\n"
        )
        parts += [
            f"{'-' * 80}\n{path}\n\n{text.strip()}\n"
            for path, text in sorted(texts.by_path.items())
        ]
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--notice", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    here, store = installed(), TextStore(Path(sys.prefix) / "var" / "licenses")
    if arguments.notice is not None:
        arguments.notice.write_text(notice(each for _, each in sorted(here.items())))
        return 0

    def texts_of(name: str, version: str) -> Texts:
        return (
            here.get((name, version)) or store.find(name, version) or store.download(name, version)
        )

    policy = tomllib.loads(POLICY.read_text())
    entries = _table(policy["packages"])
    names: set[str] = set()
    failed = count = 0
    locks = sorted(LOCKS.glob("*.txt"))
    for lock in locks:
        missing = {each for each in locked(lock) if each not in here and not store.find(*each)}
        if missing:
            store.download_together(lock, missing)
    for release in sorted({each for lock in locks for each in locked(lock)}):
        count += 1
        names.add(release[0])
        try:
            problems = problems_of(texts_of(*release), policy)
        except OSError as error:
            problems = [f"its texts cannot be read: {error}"]
        for problem in problems:
            failed += 1
            print(f"{release[0]} {release[1]}: {problem}")
    for name in sorted(set(entries) - names):
        failed += 1
        print(f"{POLICY.name} names {name}, which no lock file has")
    if failed:
        print("error: see requirements/licenses.toml, which says what is allowed and why")
        return 1
    print(
        f"licences: {count} releases are read; {len(entries)} packages have a reason of their own"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
