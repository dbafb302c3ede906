"""Answers that were valid once, by the hash of all they depend on: nothing is asked twice, not even after a crash."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from explainvad.explanation.describers.answer import ANSWER_LENGTH
from explainvad.explanation.describers.asking import Reply
from explainvad.whole_files import write_whole

FOLDER = "answers"  # below the run folder; no part of the record, and safe to delete

_KEY = re.compile(r"[0-9a-f]{64}")
_REPLY = TypeAdapter(Reply)


class AnswerStore:
    """Replies in memory and, with a ``folder``, one file each in it. Answers read from there are validated anew."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Reply] = {}

    def get(self, key: str) -> Reply | None:
        """The answer to the question with this hash; None where there is none that can be read."""
        if key in self._known or self._folder is None:
            return self._known.get(key)
        path = self._path(self._folder, key)
        try:
            if self._folder.is_symlink() or path.is_symlink() or path.stat().st_size > 4 * ANSWER_LENGTH:
                return None
            return _REPLY.validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None

    def put(self, key: str, answer: Reply) -> None:
        """Keep an answer. A disk that is full costs a question after a crash, and nothing else."""
        self._known[key] = answer
        if self._folder is None or self._folder.is_symlink():
            return
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            path = self._path(self._folder, key)
            write_whole(path, _REPLY.dump_json(answer), path.with_suffix(".partial"))

    def clear(self) -> None:
        """Delete what was kept, and nothing else that may lie in the folder."""
        self._known.clear()
        if self._folder is None or self._folder.is_symlink():
            return
        with suppress(OSError):
            for path in self._folder.iterdir():
                if _KEY.fullmatch(path.stem) and path.suffix in (".json", ".partial"):
                    path.unlink()
            self._folder.rmdir()

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"expected a SHA-256 in hex, got {key!r}")
        return folder / f"{key}.json"
