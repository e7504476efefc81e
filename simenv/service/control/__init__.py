"""Requests that change the environment: authorised, journaled, then answered."""
