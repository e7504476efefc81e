"""Licences of packages are read from their texts, whatever their metadata says."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
AFFERO = """
                    GNU AFFERO GENERAL PUBLIC LICENSE
                       Version 3, 19 November 2007
 Copyright (C) 2007 Free Software Foundation, Inc. <https://fsf.org/>
"""
MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy"
# Sect. 1.12 and 13 of licences that mention others.
MOZILLA = (
    'Mozilla Public License Version 2.0\n1.12. "Secondary License" means either the GNU General'
    " Public License, Version 2.0, the GNU Lesser General Public License, Version 2.1, the GNU"
    " Affero General Public License, Version 3.0, or any later versions of those licenses."
)
GPL = (
    "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n13. Use with the GNU Affero General"
    " Public License. You have permission to link any covered work with a work licensed under"
    " version 3 of the GNU Affero General Public License"
)


@pytest.fixture(scope="module")
def licenses() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licenses", ROOT / "scripts/licenses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["licenses"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def policy(licenses: ModuleType) -> dict[str, object]:
    return tomllib.loads(licenses.POLICY.read_text())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (AFFERO, {"AGPL-3.0"}),
        (GPL, {"GPL-3.0"}),
        (MOZILLA, {"MPL-2.0"}),
        (MIT, {"MIT"}),
        ("# Licensed under the Apache License,\n# Version 2.0", {"Apache-2.0"}),
        ("/*\n * Permission to use, copy, modify, and/or distribute this software for any purpose\n"
         " * with or without fee", {"ISC"}),
        ("All rights reserved.", set()),
    ],
)  # fmt: skip
def test_licences_are_recognised_by_their_texts(
    licenses: ModuleType, text: str, found: set[str]
) -> None:
    assert licenses.licences_of(text) == found


def test_a_wheel_with_an_affero_licence_and_silent_metadata_is_refused(
    licenses: ModuleType, policy: dict[str, object], tmp_path: Path
) -> None:
    wheel = tmp_path / "fast_paths-1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("fast_paths-1.0.dist-info/METADATA", "Name: fast-paths\nVersion: 1.0\n")
        archive.writestr("fast_paths-1.0.dist-info/licenses/LICENSE", AFFERO)
    texts = licenses.TextStore(tmp_path / "store")._put("fast-paths", "1.0", wheel)
    (problem,) = licenses.problems_of(texts, policy)
    assert "AGPL-3.0" in problem
    assert licenses.TextStore(tmp_path / "store").find("fast-paths", "1.0") == texts


def test_a_package_without_a_text_or_with_an_unknown_one_is_refused(
    licenses: ModuleType, policy: dict[str, object]
) -> None:
    silent = licenses.Texts("silent", "1.0", {})
    assert licenses.problems_of(silent, policy) == ["it carries no text of a licence"]
    unknown = licenses.Texts("unknown", "1.0", {"unknown/LICENSE": "All rights reserved."})
    assert "no licence that is recognised" in licenses.problems_of(unknown, policy)[0]


def test_reasons_are_for_their_package_alone(
    licenses: ModuleType, policy: dict[str, object]
) -> None:
    lesser = "GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"
    by_path = {"LICENSE.txt": lesser}
    assert not licenses.problems_of(licenses.Texts("psycopg", "3.3.9", by_path), policy)
    assert licenses.problems_of(licenses.Texts("other", "1.0", by_path), policy)
    packages = policy["packages"]
    assert isinstance(packages, dict)
    assert all(entry["reason"] for entry in packages.values())


def test_no_extra_or_lock_file_names_cotengrust(licenses: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [each for extra in project["optional-dependencies"].values() for each in extra]
    assert not [each for each in names if "cotengrust" in each]
    locks = (ROOT / "requirements").glob("*.txt")
    assert not [lock for lock in locks if "cotengrust" in dict(licenses.locked(lock))]


def test_a_notice_has_each_package_with_its_texts(licenses: ModuleType) -> None:
    texts = licenses.Texts("one", "1.0", {"LICENSE": MIT})
    text = licenses.notice([texts])
    assert "one 1.0: MIT" in text
    assert MIT in text
