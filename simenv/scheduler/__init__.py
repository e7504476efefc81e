"""Decisions of the service: events in, actions out; no clock, I/O, thread or randomness.

`Scheduler` has one method for each event; `SchedulerState` holds the data, which the service reads.
Packages, from top to bottom (each imports only those below it):

- `forecast`: expected starts, by the dispatcher over a copy of the state
- `events`: state changes and actions that follow from each kind of event
- `views`: read-only answers
- `admission`: why a submission or a reservation is refused
- `scaling`: number and nodes of workers
- `dispatch`: assignment of tasks to workers
- `state`: the data and its bookkeeping
- `routing`: engine, pool and ranks for a program
- `reservations`: the ledger of credits and rates
- `queueing`: the order of waiting tasks
- `core`: limits, tasks, actions, and the times that tasks are expected to take
"""
