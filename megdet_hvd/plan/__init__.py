"""Know before the queue what 8 … 128 GPUs will give: a cost model; imports neither torch nor Horovod.

docs/plan.md has the equations, their sources, and how well they do against published runs.
"""
