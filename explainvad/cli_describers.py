"""The option that chooses who describes regions. :mod:`explainvad.cli` takes it up."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class DescriberOf(StrEnum):
    """Who writes about regions."""

    measured = "measured"
    vlm = "vlm"
    endpoint = "endpoint"


DescriberChoice = Annotated[
    DescriberOf | None,
    typer.Option(
        "--describer",
        help="Who writes about regions beside the measured sentences: measured (nobody), vlm or endpoint, with the "
        "settings of [describer]; as configured when not given.",
        show_default=False,
    ),
]
