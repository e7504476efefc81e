"""Table of noise documents: statements to write it, a function to read it.

Invariant: a document is in the journal before, or in one commit with, the first task that names
it. Older journals do not have the table; it is created empty.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.service.journal.reader import Records

SCHEMA = """
create table if not exists noise_document(digest text primary key, owner text, at real, body blob)
  without rowid;
"""
Statement = tuple[str, tuple[Any, ...]]


class StoredDocument(msgspec.Struct, frozen=True):
    """One row. `owner`: the owner of the task that brought the document; "": the environment's own
    user, or the document of a device."""

    digest: str  # hex
    owner: str
    at: float  # wall clock, seconds since 1970
    body: bytes


def insert(row: StoredDocument) -> Statement:
    """Return the statement that stores a document."""
    values = (row.digest, row.owner, row.at, row.body)
    return "insert or replace into noise_document values(?,?,?,?)", values


def delete(digest: str) -> Statement:
    """Return the statement that removes a document."""
    return "delete from noise_document where digest = ?", (digest,)


def read(records: Records) -> list[StoredDocument]:
    """Read all documents, the oldest first. Raises JournalError."""
    query = "select digest, owner, at, body from noise_document order by at"
    return [StoredDocument(*row) for row in records.rows(query)]
