"""The launch environment: ranks, cores, launchers; imports neither torch nor Horovod."""
