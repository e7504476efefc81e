"""Child processes with bounds: start, frames, limits of time, memory and output, and their end.

With frames: `child` and `async_child` are the side of the parent process, `parent` that of the
child, `frames` the messages; `functions` converts what other users send. Without: `program` runs
programs of others to their end, `supervised` starts processes again. What a process may use:
`limits`, `confinement` with `system_calls`, `private_namespaces`. Its end: `die_with_parent`,
`process_tree`. All but `functions` import nothing else of simenv, so that the launcher uses them.
"""
