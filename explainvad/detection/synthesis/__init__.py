"""Generated images of surfaces and parts, and defects blended into images: what the embedded backbone learns from."""
