"""The former name of :mod:`megdet_hvd.job.watch`."""

from megdet_hvd.moved import moved

__getattr__ = moved(__name__, "megdet_hvd.job.watch")
