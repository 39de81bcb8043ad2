"""Linear scaling, warm-up and policies (§3.2); imports neither torch nor Horovod."""
