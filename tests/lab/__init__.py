"""Tests of megdet_hvd.lab."""
