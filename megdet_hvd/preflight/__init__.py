"""Before training: whether all ranks are alike, can read the data, and how fast they are linked."""
