"""Plots and pages of scores."""
