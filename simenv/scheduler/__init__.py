"""All decisions of the service: values in, actions out; no clock, socket, thread or randomness.

`state` is the machine, `queue` the order of waiting tasks, `pools` when workers start and stop,
`estimate` what a task costs, `routing` which engine may run it, `values` what goes in and out.
"""
