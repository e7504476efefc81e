"""The journal, in SQLite or PostgreSQL: the only package with SQL."""
