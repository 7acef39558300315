"""Copies what browsers load from node_modules into the package, with the licences that it comes under.

.ci/assets.py             copy, after `npm ci`
.ci/assets.py --missing   say how to get npm; a failure where CI=true
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from persistasaurus.web._assets import ASSETS, HOW_TO_GET, STATIC

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "node_modules"


def main() -> int:
    """Copy the files, or say what is missing; return the exit code."""
    if "--missing" in sys.argv:
        print(
            f"npm was not found, so the API reference at /scalar is left out. {HOW_TO_GET}", file=sys.stderr
        )
        return int(os.environ.get("CI") == "true")
    shutil.rmtree(STATIC, ignore_errors=True)
    STATIC.mkdir()
    for asset in ASSETS:
        # Their bytes alone: npm's cache may lend its files with modes and links of its own.
        (STATIC / asset.name).write_bytes((MODULES / asset.source).read_bytes())
    (STATIC / "LICENSES.txt").write_text("\n\n".join(_licences()), "utf-8")
    print(f"{len(ASSETS)} files for browsers in {STATIC.relative_to(ROOT)}")
    return 0


def _licences() -> list[str]:
    packages = sorted({_package(asset.source) for asset in ASSETS})
    return [f"{package}\n\n{_licence(MODULES / package)}" for package in packages]


def _package(source: str) -> str:
    parts = source.split("/")
    return "/".join(parts[: 2 if source.startswith("@") else 1])


def _licence(folder: Path) -> str:
    texts = sorted(folder.glob("LICEN[CS]E*"))
    if texts:
        return texts[0].read_text("utf-8")
    about = json.loads((folder / "package.json").read_text("utf-8"))
    return f"{about['license']}, by its package.json. {about.get('homepage', '')}"


if __name__ == "__main__":
    sys.exit(main())
