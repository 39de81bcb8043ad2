"""The training run: prepared, carried on, trained, measured and saved.

One step of it is ``step/``, what lands in its folder is ``run_folder/``.
"""
