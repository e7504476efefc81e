"""Forecasts: the scheduler in simulated time, over a copy of its state."""
