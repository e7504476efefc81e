"""State changes and actions that follow from each kind of event."""
