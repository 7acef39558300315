"""Input for flows, steps and signals: JSON from an option, a file or stdin, and single arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from persistasaurus._codec import value_codec
from persistasaurus._signature import ArgumentsCodec
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.errors import SerializationError

input_option = click.option(
    "-i", "--input", "text", metavar="JSON|@FILE|-", help="JSON, a file of it, or - for stdin."
)
arg_option = click.option(
    "-a",
    "--arg",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="One argument: JSON where that fits its type, else text. May be repeated.",
)


def read_value(text: str | None) -> Any:
    """Return the JSON value that `--input` gives, None without it.

    Raises:
        Refusal: it is no JSON, or its file cannot be read.
    """
    if text is None:
        return None
    source, content = _content(text)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, ValueError) else "it is nested too deeply"
        raise Refusal(f"{source} is no JSON: {why}.", Exit.USAGE) from error


def read_arguments(text: str | None, pairs: Sequence[str], codec: ArgumentsCodec | None) -> dict[str, Any]:
    """Return arguments by name from `--input` and `--arg`; with a codec, text and JSON are told apart.

    Raises:
        Refusal: they are no JSON object, or an argument has no name.
    """
    given: Any = {} if text is None else read_value(text)
    if not isinstance(given, dict):
        raise Refusal('--input is to hold the arguments by name, as in \'{"name": "World"}\'.', Exit.USAGE)
    arguments = cast("dict[str, Any]", given)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Refusal(f"--arg {pair!r} has no name. Write --arg name=value.", Exit.USAGE)
        arguments[name] = _argument(value, name, codec)
    return arguments


def _content(text: str) -> tuple[str, str]:
    try:
        if text == "-":
            return "What stdin gives", sys.stdin.read()
        if text.startswith("@"):
            return f"The file {text[1:]!r}", Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"--input {text!r} cannot be read: {error}.", Exit.USAGE) from error
    return "--input", text


def _argument(text: str, name: str, codec: ArgumentsCodec | None) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if codec is None or isinstance(value, str):
        return value
    try:
        value_codec(codec._annotation(name)).from_json(text, what=name)
    except SerializationError:
        # `--arg count=3` for a text: the type decides. What fits neither way is refused later, by name.
        return text
    return value
