"""One writer for a run folder: who has it, whether that one still lives, and who may take it over.

Two runs in one folder would delete and overwrite each other's checkpoints. No torch.
"""
