"""A demo product that needs no download: photographs of a flange, drawn from geometry and light."""

from explainvad.demo.folders import DemoFolders, make_demo

__all__ = ["DemoFolders", "make_demo"]
