"""CONTRIBUTING.md names files that exist, and names that these files have."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PLACE = re.compile(r"(?:simenv|simulators|noise_models|launcher|tests|scripts|docs|bench)/[\w/.]+")


def test_every_path_exists() -> None:
    places = [each.rstrip(".") for each in PLACE.findall(TEXT)]
    assert len(places) > 40
    assert [each for each in places if not (ROOT / each).exists()] == []


def test_every_name_is_in_the_file_that_is_named_with_it() -> None:
    found = re.findall(r"`([A-Z]\w+)` (?:\(|of |in )`([\w/]+\.py)`", " ".join(TEXT.split()))
    assert len(found) >= 5
    for name, file in found:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), (name, file)
