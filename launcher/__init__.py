"""Start and end worker processes on an allocation: argv, nodes and slots; nothing quantum."""
