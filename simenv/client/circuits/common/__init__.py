"""Limits, checks and parameters that encoders and parsers share."""
