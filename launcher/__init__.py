"""Start and end of worker processes on an allocation: argv, nodes and slots; nothing quantum."""
