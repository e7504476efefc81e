"""Commands that list and trace."""
