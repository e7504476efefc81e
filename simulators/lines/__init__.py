"""Circuits as lines of hidden values, their order, and the program of sweeps over them."""
