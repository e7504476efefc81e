"""Requests that change something: authorised, journaled, then answered."""
