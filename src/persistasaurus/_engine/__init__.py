"""Drives flows: replay, steps, delays, signals, recovery and the commit path."""
