"""Tables, text and JSON of the command line."""
