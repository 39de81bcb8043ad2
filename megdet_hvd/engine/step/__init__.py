"""One step: fetch, forward, backward, the mean of the gradients (eq. 1), SGD."""
