"""Set-up: an environment with PyTorch, MPI and Horovod. Python's standard library only."""
