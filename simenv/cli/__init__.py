"""Command line. Invariant: `import simenv.cli.app` loads no numpy, qiskit, rich or numba."""
