"""Typed configuration, and what follows from the global batch."""
