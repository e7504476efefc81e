"""Results too large for a message: one HDF5 file a task, the same for workers, service and clients.

The worker writes it, the client maps it, the service only moves and checks bytes. Whoever wrote a
file knows where each array begins in it, so nobody needs HDF5 to read one; HDF5 is there so that
others can.
"""
