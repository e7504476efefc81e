"""Value types of the scheduler: task records, routes, actions."""
