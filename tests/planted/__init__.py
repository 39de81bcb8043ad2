"""Faults that the tests must find: one line each, planted into a copy of the tree."""
