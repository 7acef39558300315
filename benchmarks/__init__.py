"""Measures the engine beside raw SQLite in the same run: `make bench`."""
