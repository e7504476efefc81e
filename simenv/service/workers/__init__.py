"""Worker processes and sockets, by which the actions of the scheduler are executed."""
