"""Memory banks of patch features of frozen backbones; the one of the embedded profile is ``detection.memory_bank``."""
