"""Lines fitted, with errors that hold."""
