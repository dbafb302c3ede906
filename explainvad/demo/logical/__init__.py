"""Trays of parts with logical defects beside structural ones; :mod:`layout` states the rule of what is normal."""

from explainvad.demo.logical.defects import STRUCTURAL
from explainvad.demo.logical.folders import Tray, draw_tray, make_logical
from explainvad.demo.logical.layout import LOGICAL

__all__ = ["LOGICAL", "STRUCTURAL", "Tray", "draw_tray", "make_logical"]
