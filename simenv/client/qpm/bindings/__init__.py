"""The methods of each revision of the QPM interface."""
