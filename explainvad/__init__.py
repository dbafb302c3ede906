"""explainvad: uncertainty-aware, explainable visual anomaly detection that writes audit reports.

>>> from explainvad import Inspector                                 # doctest: +SKIP
>>> inspector = Inspector.fit("reference/", profile="embedded")      # doctest: +SKIP
>>> inspector.save("capsule.evad")                                   # doctest: +SKIP
>>> report = Inspector.load("capsule.evad").analyze("lot42/")        # doctest: +SKIP
>>> report.render("reports/lot42")                                   # doctest: +SKIP

Importing this package loads neither torch nor weasyprint: names arrive when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainvad.config import InspectionConfig, load_config
    from explainvad.errors import ExplainVADError
    from explainvad.pipeline import Inspector
    from explainvad.record.verify import verify_run
    from explainvad.types import Decision, ImageRecord, LotReport

__all__ = [
    "Decision",
    "ExplainVADError",
    "ImageRecord",
    "InspectionConfig",
    "Inspector",
    "LotReport",
    "load_config",
    "verify_run",
]

_HOMES = {
    "Decision": "types",
    "ExplainVADError": "errors",
    "ImageRecord": "types",
    "InspectionConfig": "config",
    "Inspector": "pipeline",
    "LotReport": "types",
    "load_config": "config",
    "verify_run": "record.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'explainvad' has no attribute {name!r}")
    return getattr(import_module(f"explainvad.{_HOMES[name]}"), name)
