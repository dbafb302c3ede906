"""Parts of the README that scripts write: between the comments ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""

from __future__ import annotations

from pathlib import Path


def write_section(readme: Path, name: str, text: str) -> None:
    """Put ``text`` between the markers of ``name``; SystemExit where they are missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = readme.read_text("utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{readme.name} has no markers {begin} and {end}: put them where the text belongs")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")
