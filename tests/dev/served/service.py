"""A service that shows its environment, and flows that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import durable
from fastapi import FastAPI, HTTPException

from persistasaurus import Persistasaurus


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    if url := os.environ.get("PERSISTASAURUS_URL"):
        async with Persistasaurus(url, worker=False) as app:
            api.state.flows = app
            yield
    else:
        yield


if "SPAWN" in os.environ:
    command = ["sh", "-c", "trap '' TERM; exec sleep 1000"]
    print("child", subprocess.Popen(command, stdin=subprocess.DEVNULL).pid)

app = FastAPI(lifespan=lifespan)
mood = ["good"]


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.get("/moody")
async def moody() -> None:
    if mood[0] == "bad":
        raise HTTPException(503)


@app.post("/mood/{new}")
async def change(new: str) -> None:
    mood[0] = new


@app.get("/environment")
async def environment() -> dict[str, str]:
    return dict(os.environ)


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/hello/{name}")
async def hello(name: str) -> int:
    print("asked for", name)
    print("warned of", name, file=sys.stderr)
    return await app.state.flows.run_async(durable.greet, name)


@app.get("/ask/{service}")
def ask(service: str) -> str:
    with urllib.request.urlopen(os.environ[f"PERSISTASAURUS_SERVICE_{service}_URL"] + "/pid") as answer:
        return answer.read().decode()
