"""Estimators of a device's quantities from the counts of experiments alone."""
