"""What only a GPU can show. ``make test ARGS=tests/gpu`` on a machine that has one, or several."""
