"""The user's side: pack at the edge, send, wait, unpack when somebody looks.

A stranger to service and worker: it knows them by `wire` alone. Nothing here is imported by
`import simenv` before it is used, and numpy and qiskit only by the calls that need them.
"""
