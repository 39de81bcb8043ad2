"""Experiments that hold this toolkit against others and against the paper."""
