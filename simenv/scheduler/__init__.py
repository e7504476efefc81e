"""All decisions of the service: values in, actions out; no clock, socket, thread or randomness.

`state` is the machine, over `crew` (the life of workers) and `books` (what is remembered); `nodes`
the ledger of slots and memory; `routing` which engine may run a program, `sizing` over how many
ranks; `queue` the order of waiting tasks, `dispatch` which of them go where, `claims` those of
several ranks; `growth` how many workers there are, `moving` and `standing` when they leave a node;
`waiting` why a task waits; `estimate` what it costs; `values` what goes in and out.
"""
