"""The native HTTP API is that of before: its description, frozen. After a compatible addition

SIMENV_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/compatibility/test_openapi.py

writes it anew; API_VERSION of `simenv.gateway.native.openapi` grows with it."""

import os
from pathlib import Path

import msgspec

from simenv.gateway.native import openapi

FILE = Path(__file__).parents[1] / "golden" / "openapi" / "native.json"


def test_the_description_of_the_api_is_the_frozen_one() -> None:
    text = msgspec.json.format(openapi.native_document()).decode() + "\n"
    if os.environ.get("SIMENV_WRITE_GOLDEN"):
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text)
    assert text == FILE.read_text()


def test_every_reference_leads_to_a_schema() -> None:
    document = msgspec.json.decode(openapi.native_document())
    schemas = document["components"]["schemas"]

    def references(tree: object) -> set[str]:
        if isinstance(tree, dict):
            own = {tree["$ref"]} if isinstance(tree.get("$ref"), str) else set()
            return own.union(*map(references, tree.values()))
        return set().union(*map(references, tree)) if isinstance(tree, list) else set()

    found = references(document)
    assert found
    assert {each.removeprefix("#/components/schemas/") for each in found} <= set(schemas)
    identifiers = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(set(identifiers)) == len(identifiers)
