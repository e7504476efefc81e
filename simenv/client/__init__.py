"""Client of an environment: packs circuits, submits tasks, waits for them and decodes their
results.

It imports nothing of the service and of workers; messages of `wire` are its only interface to them.
`import simenv` imports none of it, and only calls that need numpy and qiskit import them.
"""
