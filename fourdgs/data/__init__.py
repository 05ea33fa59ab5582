"""Captures on disk: reading, validating, making and repairing them."""
