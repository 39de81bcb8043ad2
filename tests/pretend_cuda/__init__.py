"""A CUDA device that computes on the CPU, so that code for CUDA runs where there is none."""
