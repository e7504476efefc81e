"""Child processes with bounds: start, frames, limits of time, memory and output, and their end.

`child`, `async_child`: the side of the parent process. `parent`: that of the child. `frames`: the
messages between them. `limits`: what a process may use. `functions`: functions that convert what
other users send. All but `functions` import nothing of simenv, so that the launcher uses them too.
"""
