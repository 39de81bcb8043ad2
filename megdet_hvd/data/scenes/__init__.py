"""Rendered scenes: the embedded default data set, made on first use."""
