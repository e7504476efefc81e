"""Commands about tasks: submit, simulate, result, explain, cancel."""
