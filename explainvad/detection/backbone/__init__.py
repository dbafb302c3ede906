"""The embedded backbone: a small hybrid CNN-Transformer with weights of this project's own."""
