"""Tests of megdet_hvd.cluster."""
