"""Kernels that a first circuit of a large state does without.

Each module is loaded by the first call that needs it, for a process need not wait for the others to
be compiled.
"""
