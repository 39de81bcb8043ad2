"""Batches above 256: beyond what MegDet shows, so the warm-up grows with the batch.

The paper's largest batch is 256. From there on, published recipes for detection with SGD leave
plain linear scaling, and warm up for longer than 500 iterations (all of them ResNet-50 with a
feature pyramid on COCO, where linear scaling would give 0.32 at batch 256 and 0.64 at 512):

- NVIDIA's MLPerf v0.7 Mask R-CNN: 625 iterations at batches 48, 96 and 128, at the linear rate;
  1800 iterations at batch 256, at rate 0.24. 1800·256 pictures are 3.9 epochs.
  https://github.com/mlcommons/training_results_v0.7/tree/master/NVIDIA/benchmarks/maskrcnn/implementations/pytorch
  (config_DGX1.sh, config_DGXA100_2x8x6.sh, config_DGXA100_multi_4x8x4.sh, config_DGXA100_multi.sh)
- AGVM (Xue et al. 2022, https://arxiv.org/abs/2210.11078) for Faster R-CNN: 920 iterations at
  batch 256, at rate 0.226; 460 iterations at batch 512, at rate 0.38; both are 2.0 epochs.
  https://github.com/Sense-X/AGVM/tree/main/configs/object_detection/agvm
  Its authors find that gradient variances of backbone, pyramid and heads drift apart from batch
  256 to 1024, which no warm-up mends: they give each part a rate of its own.

The rule here: iterations grow in proportion to the batch, 500·N̂/256, so that the rate rises by
the same amount in each iteration as at batch 256. With linear scaling the peak grows in the same
proportion. Pictures grow with the square of the batch, and the run has ever fewer iterations; so
the warm-up takes a fifth of the run at most. On COCO with policy *normal* that is 2.2 epochs from
batch 512 on, close to AGVM's 2.0; with *long* 3.6, close to NVIDIA's 3.9.
"""

import math

from megdet_hvd.schedule.warmup import AUTO_ITERATIONS

LARGEST_SHOWN = 256
"""The largest batch in the paper (Table 3), where linear scaling is shown to work."""

SHARE_OF_RUN = 5
"""A lengthened warm-up takes at most one fifth of the run."""


def lengthened_warmup_iterations(global_batch: int, end_iteration: int) -> int:
    """ceil(500·batch/256), at most a fifth of a run of ``end_iteration`` iterations."""
    wanted = math.ceil(AUTO_ITERATIONS * global_batch / LARGEST_SHOWN)
    return min(wanted, end_iteration // SHARE_OF_RUN)
