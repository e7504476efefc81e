"""From arguments of submit to packed programs, and their way to the service."""
