"""Tests of megdet_hvd.bn."""
