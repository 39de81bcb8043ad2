"""Sublinear memory: activations are dropped in the forward pass and computed again in the backward.

The paper needs it for BN over 32 and 64 images (§3.3); the method is Chen et al. 2016
(https://arxiv.org/abs/1604.06174).
"""

from megdet_hvd.memory.checkpointing import checkpoint, checkpoint_sequential
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.memory.segments import Mode

__all__ = ["Mode", "checkpoint", "checkpoint_sequential", "recompute_segments"]
