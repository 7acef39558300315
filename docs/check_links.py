"""Checks that links between the project's pages resolve, and that each page under docs/ is linked to.

Only links to files and headings in this repository are followed; nothing is asked of the network.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
OUTSIDE = re.compile(r"^[a-z]+:")


def main() -> int:
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    linked: set[Path] = set()
    complaints: list[str] = []
    for page in pages:
        for link in LINK.findall(CODE.sub("", _prose(page))):
            if OUTSIDE.match(link):
                continue
            target = _target(page, link)
            if target != page:
                linked.add(target)
            if complaint := _complaint(target, link):
                complaints.append(f"{page.relative_to(ROOT)}: {complaint}")
    complaints += [
        f"{page.relative_to(ROOT)}: no page links here. Add it to docs/index.md."
        for page in pages
        if page.is_relative_to(ROOT / "docs") and page not in linked
    ]
    print(*complaints or [f"{len(pages)} pages, every link resolves"], sep="\n")
    return bool(complaints)


def _target(page: Path, link: str) -> Path:
    path = link.partition("#")[0]
    return (page.parent / path).resolve() if path else page


def _complaint(target: Path, link: str) -> str | None:
    if not target.exists():
        return f"{link} leads nowhere."
    anchor = link.partition("#")[2]
    if anchor and anchor not in _anchors(target):
        return f"{link} names a heading that the page does not have."
    return None


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown viewer makes from the page's headings."""
    headings = HEADING.findall(_prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


if __name__ == "__main__":
    sys.exit(main())
