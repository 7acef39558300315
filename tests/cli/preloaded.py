"""What a command may import, imported once by the process that the tests' commands are forked from."""

from __future__ import annotations

import importlib
import pkgutil

import persistasaurus.cli

for module in pkgutil.iter_modules(persistasaurus.cli.__path__, "persistasaurus.cli."):
    importlib.import_module(module.name)
