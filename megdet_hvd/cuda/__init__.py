"""CUDA's own interface, for what torch has no words for: kernels of ours, memory between processes.

The libraries are those that torch brings, called through ctypes; importing does nothing.
"""
