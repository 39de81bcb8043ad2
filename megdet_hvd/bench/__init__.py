"""Measurements of the parts, to be repeated on any machine: ``python -m megdet_hvd.bench``."""
