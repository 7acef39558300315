"""A file that was damaged or edited: what is wrong is found, and nothing wrong is believed."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from persistasaurus import Persistasaurus, PersistasaurusError, Signal, StoreError, flow, step
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.story import Outcome

go = Signal("go", str)
PATIENCE_S = 0.6
ROOT = Path(__file__).resolve().parents[3]


@step
def part(name: str, number: int) -> str:
    return f"{name}/{number}"


@flow
def at_once(name: str) -> list[str]:
    return [part(name, number) for number in range(4)]


@flow
def held_up(name: str) -> list[str]:
    return [part(name, 0), part(name, 1), go.wait(), part(name, 2)]


@flow
async def async_held_up(name: str) -> list[str]:
    return [await part.submit(name, 0), await part.submit(name, 1), await go, await part.submit(name, 2)]


# Not yet started when the damage is done: its signal waits for it.
FLOWS: dict[str, Any] = {
    **{f"whole-{n}": at_once for n in range(3)},
    **{f"held-{n}": held_up for n in range(3)},
    **{f"async-{n}": async_held_up for n in range(3)},
    **{f"late-{n}": held_up for n in range(2)},
}


def expected(name: str) -> list[str]:
    """Return what a flow gives, whoever ran its steps and how often."""
    if FLOWS[name] is at_once:
        return [f"{name}/{number}" for number in range(4)]
    return [f"{name}/0", f"{name}/1", f"go {name}", f"{name}/2"]


def made(folder: Path) -> Path:
    """Return a folder with a database as a crash leaves it: most of it in the write-ahead log still."""
    base = folder / "undamaged"
    if not base.exists():
        # By a process that is gone afterwards: what it owns is free.
        code = f"from tests.crash.trials.damage import make; make({str(folder)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return base


def make(folder: str) -> None:
    """Make the database, and copy its files while it is open."""
    db, base = Path(folder, "original.db"), Path(folder, "undamaged")
    base.mkdir(parents=True)
    with Persistasaurus(db) as app:
        for name, kind in FLOWS.items():
            if name.startswith("late"):
                app.handle(name).send(go, f"go {name}")
                continue
            handle = app.start(kind.options(flow_id=name), name)
            if kind is at_once:
                handle.result(10)
        while any(record.status == "PENDING" for record in app.flows()):
            time.sleep(0.002)
        # Not by open() and close(), which would drop SQLite's locks on it.
        subprocess.run(["cp", db, base / "flows.db"], check=True)
        subprocess.run(["cp", f"{db}-wal", base / "flows.db-wal"], check=True)
    return base


def damaged(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """One damage of a random kind; every flow gives the right result, or an error that says what is wrong."""
    logging.getLogger("persistasaurus").setLevel(logging.CRITICAL + 1)
    rng = random.Random(seed)
    base, copy = made(place.folder), place.folder / f"damaged-{seed}"
    subprocess.run(["cp", "-r", base, copy], check=True)
    db = copy / "flows.db"
    name, do = rng.choice(list(DAMAGES.items()))
    what = f"seed {seed}, {name}: {do(db, rng)}"
    try:
        wrong = _outcomes(db, what)
    except StoreError:
        wrong = None  # the whole file is refused
    finally:
        logging.getLogger("persistasaurus").setLevel(logging.NOTSET)
    if do is edit:
        assert wrong is not None, f"{what}: an edited row keeps the app from being entered"
        assert len(wrong) <= 1, f"{what}: more than its own flow came to harm: {wrong}"
    return Outcome(1, len(FLOWS))


def _outcomes(db: Path, what: str) -> dict[str, str]:
    """Let all flows go on, and return which did not end and why; another result is a violation."""
    wrong: dict[str, str] = {}
    with Persistasaurus(db, drain=0) as app:
        until = time.monotonic() + PATIENCE_S
        for name, kind in FLOWS.items():
            try:
                handle = app.start(kind.options(flow_id=name), name)
                if name.startswith(("held", "async")):
                    handle.send(go, f"go {name}")
            except PersistasaurusError as error:
                wrong[name] = repr(error)
        for name in FLOWS:
            try:
                result = app.handle(name).result(timeout=max(0.02, until - time.monotonic()))
            except (PersistasaurusError, TimeoutError) as error:
                wrong[name] = repr(error)
            else:
                assert result == expected(name), f"{what}: {name} gave {result}, and nobody noticed"
    return wrong


def flip(db: Path, rng: random.Random) -> str:
    """Flip a bit of the database."""
    return _flipped(db, rng)


def flip_log(db: Path, rng: random.Random) -> str:
    """Flip a bit of the write-ahead log."""
    return _flipped(db.with_name("flows.db-wal"), rng)


def flip_whole(db: Path, rng: random.Random) -> str:
    """Flip a bit where all is in the database, and the log is gone."""
    with closing(apsw.Connection(str(db))):
        pass  # the last one to close it writes the log back
    return _flipped(db, rng)


def _flipped(file: Path, rng: random.Random) -> str:
    content = bytearray(file.read_bytes())
    bit = rng.randrange(len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {file.name}"


def cut_log(db: Path, rng: random.Random) -> str:
    """Cut the write-ahead log short."""
    log = db.with_name("flows.db-wal")
    size = rng.randrange(log.stat().st_size)
    with log.open("r+b") as file:
        file.truncate(size)
    return f"{size} bytes of the log are left"


def lose_log(db: Path, rng: random.Random) -> str:
    """Delete the write-ahead log."""
    db.with_name("flows.db-wal").unlink()
    return "the log is gone"


def zero_page(db: Path, rng: random.Random) -> str:
    """Have a page of the database hold zeros, as after a lost block."""
    flip_whole(db, rng)
    content = bytearray(db.read_bytes())
    page = rng.randrange(len(content) // 4096)
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    db.write_bytes(content)
    return f"page {page + 1} is zero"


EDITED = {
    "step": """
        kind name_id status attempts asked started_at_ms ended_after_ms event attempts_before
        parameters return_value error checksum
    """,
    "flow": "flow_id name_id status created_at_ms seed input result error checksum outcome_checksum",
    "signal": "flow_id name payload sent_at_ms checksum",
}


def edit(db: Path, rng: random.Random) -> str:
    """Change one cell by SQL, or delete a step's row."""
    table = rng.choice(["step", "step", "flow", "signal"])
    column = rng.choice(EDITED[table].split())
    connection = apsw.Connection(str(db))
    try:
        rowid = _chosen(connection, table, rng)
        where = (
            f"flow_key = {rowid // 1000} AND step = {rowid % 1000}" if table == "step" else f"rowid = {rowid}"
        )
        if table == "step" and rng.random() < 0.2:
            connection.execute(f"DELETE FROM step WHERE {where}")
            return f"step {where} is deleted"
        ((old,),) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}")
        new = _another(old, rng)
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (new,))
        return f"{table}.{column} of {where} was {old!r:.60} and is {new!r:.60}"
    finally:
        connection.close()


def _chosen(connection: apsw.Connection, table: str, rng: random.Random) -> int:
    key = "flow_key * 1000 + step" if table == "step" else "rowid"
    return rng.choice([row[0] for row in connection.execute(f"SELECT {key} FROM {table} ORDER BY 1")])


def _another(old: Any, rng: random.Random) -> Any:
    if old is None:
        return rng.choice([0, 1, '"stolen"'])
    if isinstance(old, int):
        return old + rng.choice([-1, 1, 1000])
    return rng.choice(['"stolen"', "[]", old[:-1], old.replace("0", "7") + " "])


DAMAGES: dict[str, Callable[[Path, random.Random], str]] = {
    each.__name__: each for each in (flip, flip_log, flip_whole, cut_log, lose_log, zero_page, edit)
}
