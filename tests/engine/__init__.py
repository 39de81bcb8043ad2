"""Tests of megdet_hvd.engine."""
