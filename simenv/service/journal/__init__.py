"""The SQLite journal: the only package with SQL."""
