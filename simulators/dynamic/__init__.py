"""Dynamic circuits: their instructions, and the interpreter that all engines share."""
