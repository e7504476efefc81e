"""Shared parts of the importers: files, strict values, the builder of the snapshot, the report."""
