"""Whether the environment forbids the network, in the words of the Hugging Face libraries and in our own."""

from __future__ import annotations

import os

OFFLINE = ("EXPLAINVAD_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_YES = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its own


def forbidden_by() -> str | None:
    """The first environment variable that forbids the network; None where none does."""
    return next((name for name in OFFLINE if os.environ.get(name, "").upper() in _YES), None)
