"""Training of the embedded backbone on generated images: ``explainvad train-backbone``."""
