"""A demo product that needs no download: photographs of a flange, drawn from geometry and light."""

from explainvad.config import DetectionConfig, InspectionConfig
from explainvad.demo.folders import DemoFolders, make_demo

# A third of the usual adaptation: the flange is an easy product, and a first report should not take five minutes
DEMO_CONFIG = InspectionConfig(detection=DetectionConfig(adaptation_steps=100))

__all__ = ["DEMO_CONFIG", "DemoFolders", "make_demo"]
