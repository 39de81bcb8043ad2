"""MegDet on Horovod: object detectors trained with very large mini-batches."""

__version__ = "0.1.0"
