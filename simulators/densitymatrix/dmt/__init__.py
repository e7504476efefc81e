"""Engine `dmt`: density operators as tensor networks, cut by density matrix truncation."""
