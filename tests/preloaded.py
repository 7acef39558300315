"""What the tests' processes may import, imported once by the process that they are forked from."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import persistasaurus.cli
import persistasaurus.web
from persistasaurus._codec import object_codec

for package in (persistasaurus.cli, persistasaurus.web):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
for name in ("loops.auto", "protocols.http.auto", "protocols.websockets.auto", "lifespan.on", "main"):
    importlib.import_module(f"uvicorn.{name}")
for name in ("postgres", "sqlite"):
    importlib.import_module(f"persistasaurus._store.{name}")
# Pydantic looks at all that is installed when it builds the first one.
object_codec("any", {"number": int}, optional=set(), what="it")
# Else each child's collections copy what all could share.
gc.freeze()
