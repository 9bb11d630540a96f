"""The page that measurements are written into."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def machine(threads: int) -> str:
    """Date, processor, memory and versions in one sentence."""
    return (
        f"{datetime.date.today()}: {processor()}, {threads} threads, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB; Python "
        f"{platform.python_version()}, torch {version('torch')}, palate {version('palate')}"
    )


def processor() -> str:
    """The processor's name as the system gives it."""
    names = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", names.read_text()) if names.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def write_section(name: str, text: str, path: Path = PAGE) -> None:
    """What stands between the page's markers of this name is ``text``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    page = path.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        raise SystemExit(f"{path} has no {begin} … {end} to write between.")
    head, tail = page.split(begin)[0], page.split(end)[1]
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
