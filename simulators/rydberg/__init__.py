"""State vectors of neutral atoms that lasers drive: engine `rydberg`."""
