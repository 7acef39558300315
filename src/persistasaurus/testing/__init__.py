"""For tests of code that uses Persistasaurus: time that a test moves, crashes, power losses, apps in memory.

The pytest plugin gives the fixtures `app`, an entered app in memory, and `clock`, the clock it goes by.
"""

from persistasaurus.testing.apps import memory_app
from persistasaurus.testing.clock import MovableClock
from persistasaurus.testing.crash import CrashAt, crash_points, effect
from persistasaurus.testing.power import PowerLoss

__all__ = ["CrashAt", "MovableClock", "PowerLoss", "crash_points", "effect", "memory_app"]
