"""Noise documents of accepted tasks: content-addressed, journaled, bounded for each owner.

Invariant: a document that an unfinished task names is never removed. Used from the loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from simenv.errors import LimitExceededError
from simenv.scheduler.state.state import SchedulerState
from simenv.service.journal.tables import NOISE, StoredDocument, read_documents
from simenv.service.journal.writer import Journal
from simenv.text import size

MAX_DOCUMENTS = 64  # of one owner
MAX_OWNER_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 16 * 2**20


def named_documents(state: SchedulerState) -> set[str]:
    """Digests of the documents that unfinished tasks name."""
    return {record.batch.terms.snapshot for record in state.tasks.values()}


class NoiseDocuments:
    """Store of noise documents, by their digest in hexadecimal."""

    def __init__(self, journal: Journal, in_use: Callable[[], set[str]]) -> None:
        """`in_use`: returns the digests that unfinished tasks name."""
        self._journal = journal
        self._in_use = in_use
        self._rows = {row.digest: row for row in read_documents(journal.records)}

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def body(self, digest: str) -> bytes:
        """Return a document; b"" if it is not stored."""
        row = self._rows.get(digest)
        return b"" if row is None else row.body

    def add(self, digest: str, body: bytes, owner: str = "") -> None:
        """Store a document with the next commit. Raises LimitExceededError if the document is too
        large, or if unfinished tasks name too many documents of the owner."""
        if digest in self._rows:
            return
        if len(body) > MAX_DOCUMENT_BYTES:
            raise LimitExceededError(
                f"a noise document of {size(len(body))}; {size(MAX_DOCUMENT_BYTES)} are the limit"
            )
        self._evict(owner, len(body))
        row = StoredDocument(digest, owner, time.time(), body)
        self._rows[digest] = row
        self._journal.put([NOISE.put(*msgspec.structs.astuple(row))], forced=True)

    def _evict(self, owner: str, size_bytes: int) -> None:
        """Remove the owner's oldest documents that no unfinished task names."""
        own_rows = [row for row in self._rows.values() if row.owner == owner]
        held_bytes = sum(len(row.body) for row in own_rows)
        used: set[str] | None = None
        for row in own_rows:
            if len(own_rows) < MAX_DOCUMENTS and held_bytes + size_bytes <= MAX_OWNER_BYTES:
                return
            used = self._in_use() if used is None else used
            if row.digest not in used:
                own_rows = [each for each in own_rows if each is not row]
                held_bytes -= len(row.body)
                del self._rows[row.digest]
                self._journal.put([NOISE.remove(row.digest)], forced=False)
        if len(own_rows) >= MAX_DOCUMENTS or held_bytes + size_bytes > MAX_OWNER_BYTES:
            raise LimitExceededError(
                f"{len(own_rows)} noise documents with {size(held_bytes)} are in use; the limits"
                f" are {MAX_DOCUMENTS} and {size(MAX_OWNER_BYTES)}",
                hint="wait for tasks to end, or use fewer noise models",
            )


MAX_SENT = 256  # documents that one worker holds


class SentDocuments:
    """Digests of the documents that each start of a worker has received, so that each document is
    sent once."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[int, set[str]]] = {}  # by worker: its start, digests

    def missing(self, worker: str, start: int, needed: Iterable[str]) -> tuple[list[str], bool]:
        """Return the documents to send before a chunk that needs these, which are recorded as sent,
        and whether the worker must drop all others first."""
        sent_start, sent = self._sent.get(worker, (start, set()))
        if sent_start != start:
            sent = set()
        needed_digests = dict.fromkeys(needed)
        new = [digest for digest in needed_digests if digest not in sent]
        alone = bool(new) and len(sent) + len(new) > MAX_SENT
        if alone:
            sent, new = set(), list(needed_digests)
        sent.update(new)
        self._sent[worker] = (start, sent)
        return new, alone
