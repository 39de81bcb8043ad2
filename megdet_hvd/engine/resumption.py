"""Carrying a run on: one view of its checkpoint, and a configuration that fits the processes.

Every rank may see another newest checkpoint on a network file system. So rank 0 alone looks, before
Horovod starts (:func:`megdet_hvd.job.meeting.rank_0_decides`), since the groups that share BN
statistics follow from it. From there on it is arithmetic, the same on every rank.
"""

from collections.abc import Collection
from pathlib import Path

from megdet_hvd.checkpoint.facts import read_saved_layout
from megdet_hvd.checkpoint.recovery import checkpoint_to_carry_on
from megdet_hvd.config.auto_resize import with_resizer_of
from megdet_hvd.config.bn_groups import RanksByMachine
from megdet_hvd.config.elastic_resume import MAY_STAND, ElasticResume, elastic_resume
from megdet_hvd.config.load import config_to_dict, sets
from megdet_hvd.config.resume_rules import at_path, refuse_changes
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.serialize import serializable


@serializable
class Resumption:
    """What is known of a run that is carried on."""

    def __init__(self, config: Config, given: Collection[str], before: SavedLayout | None) -> None:
        """``before``: rank 0's view of the checkpoint; None: it says nothing of its processes."""
        self.config, self._given, self.before = config, frozenset(given), before
        """``config``: what is asked for, and what the run keeps where nothing is."""

    def elastic_resume(self, machines: RanksByMachine) -> ElasticResume:
        """How the run goes on, given the ranks of each machine.

        Raises:
            UserError: on all ranks alike; see :mod:`megdet_hvd.config.elastic_resume`.
        """
        if self.before is None:
            return ElasticResume(
                self.config
            )  # the full reader says what is wrong with the checkpoint
        return elastic_resume(self.config, self.before, machines, self._given)

    def sharing(self, machines: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        """Who shares BN statistics, for :func:`megdet_hvd.job.session.start`.

        A run that can't go on shares none: :meth:`elastic_resume` refuses it once the ranks can
        talk.
        """
        from megdet_hvd.engine.norms import sharing_of

        try:
            config = self.elastic_resume(machines).config
        except UserError:
            return tuple((rank,) for ranks in machines for rank in ranks)
        return sharing_of(config)(machines)


def resumption_of(
    folder: Path, config: Config, own: Config, overrides: Collection[str]
) -> Resumption:
    """How to carry on the run in ``folder``. No torch is imported.

    Args:
        folder: the run folder.
        config: what is asked for now.
        own: the run's own configuration, from its folder.
        overrides: words of this resume's own command line; the words of a job that is requeued
            ask for no other layout and don't belong here.

    Raises:
        UserError: a setting was changed that a resumed run keeps.
        StorageError: the checkpoints can't be read at the moment.
    """
    try:
        # A damaged one is set aside once the folder is held.
        before = read_saved_layout(checkpoint_to_carry_on(folder) or folder)
    except UserError:
        before = None
    if before is not None and before.config:
        config = with_resizer_of(before.config, config)
        refuse_changes(before.config, config)
    asked, had = config_to_dict(config), config_to_dict(own)
    then = None if before is None else before.filed
    given = [
        key
        for key in MAY_STAND
        if sets(overrides, key, config)
        or at_path(asked, key) != at_path(had, key)
        or (then is not None and at_path(had, key) != then.get(key))  # the file was edited
    ]
    return Resumption(config, given, before)


def filed(own: Config) -> dict[str, object]:
    """What ``own``, the run folder's file, says of the settings that a resume fits."""
    return {key: at_path(config_to_dict(own), key) for key in MAY_STAND}
