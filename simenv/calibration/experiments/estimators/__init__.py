"""Estimators: quantities of a device from the counts of experiments alone."""
