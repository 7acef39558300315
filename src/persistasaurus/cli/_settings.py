"""Settings: a flag, else the environment, else pyproject.toml, else the default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from persistasaurus.cli._exit import Exit, Refusal

DEFAULT_URL = "flows.db"
DEFAULT_SECONDS = 10.0

_KEYS = ("url", "modules", "drain", "lease")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a command works with. `drain` and `lease` are seconds, for a worker."""

    url: str
    modules: tuple[str, ...]
    drain: float
    lease: float


def read_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Settings:
    """Return the settings that hold for a command; flags that are None or empty were not given.

    Raises:
        Refusal: the nearest pyproject.toml cannot be read, or a setting is none or makes no sense.
    """
    file = _nearest(Path.cwd() if folder is None else folder)
    table = {} if file is None else _table(file)
    named = {key: environment.get(f"PERSISTASAURUS_{key.upper()}") or None for key in _KEYS}

    def given(key: str, default: Any) -> Any:
        return flags.get(key) or named[key] or table.get(key, default)

    modules = given("modules", ())
    if isinstance(modules, str):
        modules = tuple(name.strip() for name in modules.split(",") if name.strip())
    return Settings(
        url=given("url", DEFAULT_URL),
        modules=tuple(modules),
        drain=_seconds("drain", given("drain", DEFAULT_SECONDS), flags.get("drain")),
        lease=_seconds("lease", given("lease", DEFAULT_SECONDS), flags.get("lease")),
    )


def _seconds(key: str, value: Any, flag: float | None) -> float:
    if flag is not None:
        return flag  # also 0, which is as good as any
    try:
        return float(value)
    except ValueError:
        raise Refusal(
            f"PERSISTASAURUS_{key.upper()}={value!r} is no number. Give seconds, as in 10.", Exit.USAGE
        ) from None


def _nearest(folder: Path) -> Path | None:
    files = (place / "pyproject.toml" for place in (folder, *folder.parents))
    return next((file for file in files if file.is_file()), None)


def _table(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(f"{file} cannot be read: {error}. Repair it.", Exit.USAGE) from error
    table: Any = content.get("tool", {}).get("persistasaurus", {})
    if not isinstance(table, dict):
        raise Refusal(f"{file}: tool.persistasaurus is no table. Write [tool.persistasaurus].", Exit.USAGE)
    settings = cast("dict[str, Any]", table)
    for key, value in settings.items():
        _check(file, key, value)
    if "url" in settings:
        settings["url"] = _beside(file.parent, settings["url"])
    return settings


def _check(file: Path, key: str, value: Any) -> None:
    fits = {
        "url": isinstance(value, str),
        "modules": _is_texts(value),
        "drain": isinstance(value, (int, float)) and not isinstance(value, bool),
        "lease": isinstance(value, (int, float)) and not isinstance(value, bool),
    }
    if key not in fits:
        raise Refusal(
            f"{file}: [tool.persistasaurus] has no setting {key!r}. There are {', '.join(fits)}.", Exit.USAGE
        )
    if not fits[key]:
        kinds = {"url": "a text", "modules": "a list of texts"}
        raise Refusal(
            f"{file}: {key} = {value!r} is not {kinds.get(key, 'a number of seconds')}.", Exit.USAGE
        )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, cast("list[object]", value))) <= {str}


def _beside(folder: Path, url: str) -> str:
    """Return an address whose relative path counts from the folder of pyproject.toml."""
    scheme = "sqlite:///"
    if url.startswith(scheme):
        path = url.removeprefix(scheme)
        return url if path.startswith("/") else f"{scheme}{quote(str(folder))}/{path}"
    return url if "://" in url or url == ":memory:" else str(folder / url)
