"""How a process for WeasyPrint is started: importing it changes Pillow for a whole process, so it gets its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def command(module: str, *arguments: object) -> list[str]:
    """The command line that runs a module of this package with this Python."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with ``settings``, in which this package is found whatever the working directory."""
    search_path = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(search_path)} | settings
