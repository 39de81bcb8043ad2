"""The list. Each replaces one line's part by another, and names the tests that fail then.

Tests are named as pytest takes them; ``make test`` runs all of them. Those of several processes
are named wherever one process alone could not tell.
"""

from dataclasses import dataclass
from typing import Literal

Part = Literal[
    "bn",
    "schedule",
    "sampler",
    "pictures",
    "index",
    "gradients",
    "checkpoint",
    "watchdog",
    "elastic resume",
    "pipeline",
    "gpu",
    "peer",
]


@dataclass(frozen=True)
class Fault:
    """One of them."""

    part: Part
    breaks: str
    """What is wrong then."""
    file: str
    """Below ``megdet_hvd``."""
    old: str
    """Stands once in the file."""
    new: str
    tests: str
    """Below ``tests``; files, or tests of a file."""


BN = "bn/test_cross_gpu_bn.py"
GRADIENTS = "engine/test_gradients.py"
WIRE = "engine/test_wire.py"
SAMPLER = "data/test_sampler.py"
SCHEDULE = "schedule/test_schedule.py"
ELASTIC = "config/test_elastic_resume.py"
JUDGE = "job/watch/test_judge.py"
FILE = "checkpoint/test_file.py"
INDEX = "data/test_index_cache.py"
DRAWS = "model/test_draws.py"
PLACES = "model/test_losses.py::test_places_that_are_not_taken_count_for_nothing"
ON_GPU = "pretend_cuda/test_training.py::test_few_candidates"
SMALL = "pretend_cuda/test_training.py::test_small_proposals_are_left_out"

FAULTS = (
    Fault(
        "bn",
        "the variance of a group counts each process's mean once, not once a value",
        "bn/statistics.py",
        "deviations + n * mean * mean]",
        "deviations + mean * mean]",
        BN,
    ),
    Fault(
        "bn",
        "the input gradient lacks the other processes' sums",
        "bn/function.py",
        "total = ctx.carrier.sum(sums.clone(), ctx.message)",
        "total = sums.clone()",
        BN,
    ),
    Fault(
        "bn",
        "weight gradients are the group's sum, and so counted once a process",
        "bn/function.py",
        "ctx.carrier.sum(sums.clone(), ctx.message)",
        "ctx.carrier.sum(sums, ctx.message)",
        BN,
    ),
    Fault(
        "bn",
        "the biased variance goes into the running statistics",
        "bn/layer.py",
        "one.variance * (one.n / (one.n - 1))",
        "one.variance * 1.0",
        BN,
    ),
    Fault(
        "bn",
        "recomputation moves the running statistics a second time",
        "bn/layer.py",
        "if self.track_running_stats and replaying_tape() is None and moving is None:",
        "if self.track_running_stats and moving is None:",
        "memory/test_recompute.py",
    ),
    Fault(
        "bn",
        "statistics are shared over the machine, whatever groups were asked for",
        "job/session.py",
        "own = next(tuple(ranks) for ranks in sharing if hvd.rank() in ranks)",
        "own = next(tuple(ranks) for ranks in machines if hvd.rank() in ranks)",
        BN,
    ),
    Fault(
        "bn",
        "evaluation sees the running statistics of this machine alone",
        "bn/running.py",
        "buffer.copy_(part.view_as(buffer))",
        "part.view_as(buffer)",
        BN,
    ),
    Fault(
        "schedule",
        "linear scaling the wrong way round",
        "schedule/scaling.py",
        "float(exact(base_rate) * global_batch / base_batch)",
        "float(exact(base_rate) * base_batch / global_batch)",
        SCHEDULE,
    ),
    Fault(
        "schedule",
        "the rate drops an iteration late",
        "schedule/learning_rate.py",
        "if images_seen >= exact(drop.epoch)",
        "if images_seen > exact(drop.epoch)",
        SCHEDULE,
    ),
    Fault(
        "schedule",
        "the warm-up overshoots its peak",
        "schedule/warmup.py",
        "start + (peak - start) * progress",
        "start + peak * progress",
        SCHEDULE,
    ),
    Fault(
        "schedule",
        "training ends an iteration early where batches straddle the last epoch",
        "schedule/policy.py",
        "return math.ceil(exact(epoch)",
        "return math.floor(exact(epoch)",
        SCHEDULE,
    ),
    Fault(
        "sampler",
        "pieces of one orientation are cut anew in each pass",
        "data/sampler.py",
        "head = min(-epoch * n % chunk, n)",
        "head = 0",
        SAMPLER,
    ),
    Fault(
        "sampler",
        "passes of one step are shared out rank by rank: other accumulation, other order",
        "data/sampler.py",
        "place, places = accumulated * world_size + rank,",
        "place, places = rank * accumulation + accumulated,",
        f"{SAMPLER} engine/test_elastic_resume.py",
    ),
    Fault(
        "sampler",
        "every pass has the same order",
        "data/sampler.py",
        'draw_key(seed, epoch, 0, 0, "order")',
        'draw_key(seed, 0, 0, 0, "order")',
        SAMPLER,
    ),
    Fault(
        "sampler",
        "pictures of a piece too many come twice",
        "data/sampler.py",
        "uniform = uniform[:pieces]",
        "uniform = uniform[: pieces + 1]",
        SAMPLER,
    ),
    Fault(
        "pictures",
        "a worker lays its next step over one that training has not taken yet",
        "data/shared_memory.py",
        "(self._turn + 1) % self._turns",
        "(self._turn + 1) % 1",
        "data/test_shared_memory.py",
    ),
    Fault(
        "pictures",
        "beside a picture the canvas shows what its memory held before",
        "data/canvas.py",
        "place[:height, width:] = 0",
        "place[:height, width:] += 0",
        "data/test_canvas.py",
    ),
    Fault(
        "pictures",
        "pictures that shrink lose every other line instead of taking means",
        "data/resizing.py",
        "antialias=True",
        "antialias=False",
        "data/test_resizing.py",
    ),
    Fault(
        "pictures",
        "a former version's run goes on with other pixels",
        "config/resume_rules.py",
        '{"data.resize": "pillow"}',
        '{"data.resize": "torch"}',
        "config/test_auto_resize.py",
    ),
    Fault(
        "gradients",
        "predivide is not taken back after the sum",
        "engine/step/compression.py",
        "after=config.predivide / processes,",
        "after=1 / processes,",
        WIRE,
    ),
    Fault(
        "gradients",
        "the mean is divided by the number of processes twice",
        "engine/step/optimizer.py",
        "op=hvd.Sum,",
        "op=hvd.Average,",
        GRADIENTS,
    ),
    Fault(
        "gradients",
        "gradients go out as they are ready, and BN messages wait behind them",
        "engine/step/optimizer.py",
        "groups=1 if hold else None,",
        "groups=None,",
        GRADIENTS,
    ),
    Fault(
        "gradients",
        "a rank's loss is a mean over its own pictures' share, not the batch's",
        "engine/step/loop.py",
        "return total * (world_size / global_batch)",
        "return total / global_batch",
        GRADIENTS,
    ),
    Fault(
        "gradients",
        "BN's weights decay where they must not",
        "engine/step/optimizer.py",
        '{"params": rest, "weight_decay": 0.0}',
        '{"params": rest, "weight_decay": weight_decay}',
        "engine/test_parts.py",
    ),
    Fault(
        "checkpoint",
        "one checkpoint too few is kept",
        "checkpoint/retention.py",
        "ours[:-keep]",
        "ours[: 1 - keep]",
        "checkpoint/test_retention.py",
    ),
    Fault(
        "checkpoint",
        "a flipped bit goes unnoticed",
        "checkpoint/file.py",
        "        check_sums(path)",
        "        pass",
        FILE,
    ),
    Fault(
        "checkpoint",
        "a file takes its name before it is on the disk",
        "checkpoint/atomic.py",
        "            os.fsync(file.fileno())",
        "            pass",
        FILE,
    ),
    Fault(
        "checkpoint",
        "a run goes back to its oldest sound checkpoint",
        "checkpoint/recovery.py",
        "for path in reversed(inside or list_checkpoints(run_folder)):",
        "for path in inside or list_checkpoints(run_folder):",
        "checkpoint/test_recovery.py",
    ),
    Fault(
        "checkpoint",
        "a resumed run's momentum starts anew",
        "engine/state.py",
        'load_optimizer(optimizer, state["optimizer"], state.get("optimizer_built"))',
        "optimizer.state_dict()",
        "engine/test_resume.py",
    ),
    Fault(
        "checkpoint",
        "a resumed machine goes on from the average of all machines' statistics",
        "engine/state.py",
        "own: list[torch.Tensor] = kept[world.rank]",
        "own: list[torch.Tensor] = kept[0]",
        "engine/test_resume.py",
    ),
    Fault(
        "watchdog",
        "waits for other collectives of the same ranks count as one",
        "job/watch/judge.py",
        "(other.name, other.ranks) == (own.name, own.ranks)",
        "other.ranks == own.ranks",
        JUDGE,
    ),
    Fault(
        "watchdog",
        "a silent rank is never held to be gone",
        "job/watch/judge.py",
        'if state.link == "open" and state.silent_s >= limit_s:',
        'if state.link == "open" and state.silent_s >= 1e9:',
        JUDGE,
    ),
    Fault(
        "watchdog",
        "a rank that left in order is told of as dead",
        "job/watch/hub.py",
        'peer.state = replace(peer.state, link="left")',
        'peer.state = replace(peer.state, link="open")',
        "job/watch/test_hangs.py",
    ),
    Fault(
        "watchdog",
        "ranks are not told that the job ends: those that wait stay",
        "job/watch/hub.py",
        'self._tell({"end": silent_ranks(states)})',
        "pass",
        "job/watch/test_failures.py",
    ),
    Fault(
        "elastic resume",
        "a process may hold more pictures than before",
        "config/elastic_resume.py",
        "return images > before.images, abs(images - before.images)",
        "return False, abs(images - before.images)",
        ELASTIC,
    ),
    Fault(
        "elastic resume",
        "a batch that does not divide is cut all the same",
        "config/elastic_resume.py",
        "    if rest:",
        "    if rest < 0:",
        ELASTIC,
    ),
    Fault(
        "elastic resume",
        "the BN size is no longer what counts most",
        "config/elastic_resume.py",
        "        not kept,",
        "        False,",
        ELASTIC,
    ),
    Fault(
        "pipeline",
        "the worst checkpoint of all becomes the best",
        "pipeline/concurrent_evaluation.py",
        "is_better(ap, self._run.best_ap)",
        "not is_better(ap, self._run.best_ap)",
        "pipeline/test_concurrent_evaluation.py",
    ),
    Fault(
        "pipeline",
        "evaluators train too",
        "config/pipeline_roles.py",
        "Roles(ranks[: size - evaluators],",
        "Roles(ranks,",
        "config/test_pipeline_roles.py",
    ),
    Fault(
        "pipeline",
        "pictures are scaled by their width alone",
        "pipeline/picture.py",
        "longer = max(width, height)",
        "longer = width",
        "pipeline/test_prepare.py",
    ),
    Fault(
        "pipeline",
        "boxes of scaled pictures stay as they were",
        "pipeline/rewrite.py",
        "[left * x, top * y, width * x, height * y]",
        "[left, top, width, height]",
        "pipeline/test_prepare.py",
    ),
    Fault(
        "index",
        "corrected boxes are taken for the old ones where size and mtime are the same",
        "data/stamps.py",
        "found.st_mtime_ns, found.st_ctime_ns]",
        "found.st_mtime_ns]",
        INDEX,
    ),
    Fault(
        "index",
        "damaged numbers are believed",
        "data/index_cache/arrays.py",
        'if digest.hexdigest() != header["sha256"]:',
        "if not header:",
        INDEX,
    ),
    Fault(
        "index",
        "pictures that training leaves out are not asked for any more",
        "data/index_cache/stored.py",
        " + list(islice(others, count))",
        "",
        INDEX,
    ),
    Fault(
        "index",
        "what an older version read is believed",
        "data/index_cache/cache.py",
        "words = [_code(), list(digests),",
        "words = [list(digests),",
        INDEX,
    ),
    Fault(
        "gpu",
        "places that nothing was drawn for enter the losses",
        "model/losses.py",
        "    if counted is not None:",
        "    if counted is None:",
        PLACES + " " + ON_GPU,
    ),
    Fault(
        "gpu",
        "proposals too small to train on are drawn",
        "model/proposals.py",
        "return Proposals(boxes[best_first], large[best_first])",
        "return Proposals(boxes[best_first])",
        SMALL,
    ),
    Fault(
        "gpu",
        "the draw's hash lets the sign in",
        "model/hashed_draw.py",
        "(state >> shift).bitwise_and_((1 << (64 - shift)) - 1)",
        "state >> shift",
        DRAWS,
    ),
    Fault(
        "gpu",
        "the group's sums of the gradient are divided by no count",
        "bn/cuda_kernels.py",
        "torch.div(total, n, out=means)",
        "means.copy_(total)",
        "pretend_cuda/test_bn.py",
    ),
    Fault(
        "gpu",
        "running statistics move at the end with the biased variance",
        "bn/later_updates.py",
        "(n / (n - 1)).unbind()",
        "(n / n).unbind()",
        "pretend_cuda/test_bn.py",
    ),
    Fault(
        "gpu",
        "the host waits for each copy of a batch",
        "data/batch.py",
        "return values.to(device, non_blocking=True)",
        "return values.to(device)",
        "pretend_cuda/test_host.py pretend_cuda/test_counts.py",
    ),
    Fault(
        "peer",
        "sums between GPUs use one half of the inboxes",
        "comm/peer/kernel.py",
        "half = (size_t)(number & 1) * ranks * row;",
        "half = 0;",
        "comm/peer/test_kernel.py",
    ),
    Fault(
        "peer",
        "numbers begin anew with an odd one, so that one half serves twice in a row",
        "comm/peer/layout.py",
        "return FIRST_NUMBER if number == LAST_NUMBER",
        "return FIRST_NUMBER - 1 if number == LAST_NUMBER",
        "comm/peer/test_protocol.py",
    ),
    Fault(
        "peer",
        "a rank begins to add up with its own vector, not with the first rank's",
        "comm/peer/kernel.py",
        "for (int peer = 0; peer < ranks && !lost; ++peer) {",
        "for (int p = 0, peer; peer = (rank + p) % ranks, p < ranks && !lost; ++p) {",
        "comm/peer/test_kernel.py",
    ),
    Fault(
        "peer",
        "a lost sum keeps the values that it had",
        "comm/peer/kernel.py",
        "if (i > 0) vector[i - 1] = __longlong_as_double(0x7ff8000000000000LL);",
        ";",
        "comm/peer/test_kernel.py",
    ),
    Fault(
        "peer",
        "a step goes on though its GPU has lost a sum",
        "engine/step/status.py",
        "bad |= peer.is_lost()",
        "bad |= peer.is_lost() & False",
        "job/test_peer.py",
    ),
    Fault(
        "watchdog",
        "the watchdog does not see what the GPU waits in",
        "job/watch/rank_state.py",
        "place = position.device_place() or host",
        "place = host",
        "job/watch/test_device_sums.py",
    ),
)
