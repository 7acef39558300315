"""A command on an encrypted database: with the keys in the environment, and without."""

from __future__ import annotations

import sqlite3

from persistasaurus.crypto import AesGcm
from tests.cli.kit import Shell

START = ("start", "shop:total", "--input", '{"numbers": [1017, 2]}', "--id", "t-1")


def test_keys_from_the_environment_encrypt_and_decrypt(shell: Shell) -> None:
    """What is started with them is plain nowhere; without them a note stands in place of the value."""
    keys = f"one:{AesGcm.new_key_text()}"
    assert shell(*START, PERSISTASAURUS_KEYS=keys).code == 0

    assert shell("show", "t-1", "--json", PERSISTASAURUS_KEYS=keys).json["input"]["numbers"] == [1017, 2]
    without = shell("show", "t-1", "--json")
    assert without.code == 0
    assert "encrypted with key 'one'" in without.json["input"]["encrypted"]
    with sqlite3.connect(shell.folder / "flows.db") as log:
        ((text,),) = log.execute("SELECT parameters FROM execution_log").fetchall()
    log.close()
    assert "1017" not in text


def test_keys_that_are_none_are_refused_without_being_repeated(shell: Shell) -> None:
    """As usage, before anything is written."""
    key = AesGcm.new_key_text()

    refused = shell(*START, PERSISTASAURUS_KEYS=key)

    assert refused.code == 2
    assert "PERSISTASAURUS_KEYS: Key 1 is not written as id:base64" in refused.err
    assert key not in refused.err + refused.out
