"""Tests of megdet_hvd.comm."""
