"""What 8 … 128 GPUs will give, known before the queue; imports neither torch nor Horovod.

docs/plan.md has the equations, their sources, and how well they do against published runs.
"""
