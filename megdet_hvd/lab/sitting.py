"""What is missing of the experiments' records is made, seed by seed; a seed is the unit.

Each seed teaches its own backbone, and all of its rows start from that. What has a record is left
alone, what was broken off is carried on.
"""

import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from megdet_hvd.bench.launch import run_into_file
from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.config.load import load_config, to_yaml
from megdet_hvd.errors import RunError, UserError
from megdet_hvd.lab.backbone import BACKBONE_SETTING, backbone_command, backbone_facts
from megdet_hvd.lab.experiments import EXPERIMENTS
from megdet_hvd.lab.gradients import cut_twice
from megdet_hvd.lab.record_shape import fault_of
from megdet_hvd.lab.records import BACKBONE, LabRecord, SeedRecords, in_a_word, settings_digest
from megdet_hvd.lab.run_mark import claim
from megdet_hvd.lab.runs import BASELINES, PLAIN, LabRun, as_words, run_settings
from megdet_hvd.lab.scale import BN_SIZE, BN_SIZES, LabScale, scene_settings
from megdet_hvd.lab.side_by_side import own_cores, run_side_by_side
from megdet_hvd.lab.surroundings import surroundings
from megdet_hvd.lab.training import Training
from megdet_hvd.wording import counted

OVERHEAD = "overhead"
VARIANCE_KINDS: Mapping[str, tuple[LabRun, int | None]] = {
    "variance-frozen": (BASELINES[0], None),
    "variance-cgbn": (BASELINES[1], None),
    "variance-cgbn8": (BASELINES[1], BN_SIZE),
}
"""Record → whose weights, and images a statistic; None: all of a batch."""
VARIANCE_AT = ("start", "end")
"""Of the baseline's training."""


@dataclass(frozen=True)
class Sitting:
    """How and where the experiments are run."""

    scale: LabScale
    records: Path
    """Finished records, and what is drawn from them."""
    work: Path
    """Backbones, and trainings under way."""
    jobs: int | None = None
    """Cores to use at most; None: all."""
    config: Path | None = None
    """Pictures and detector of the user's own instead of scenes."""
    overrides: tuple[str, ...] = ()
    keep: bool = False

    def of_seed(self, seed: int) -> SeedRecords:
        """The seed's records."""
        return SeedRecords(self.records / f"{self.scale.name}-seed{seed}")

    def seeds_with(self, runs: Iterable[LabRun]) -> list[int]:
        """The seeds that have a record of one of ``runs`` at this scale."""
        return self.seeds_with_record(*(run.name for run in runs))

    def seeds_with_record(self, *records: str) -> list[int]:
        """The seeds that have one of these records at this scale."""
        prefix, names = f"{self.scale.name}-seed", {f"{name}.json" for name in records}
        folders = self.records.glob(f"{prefix}*")
        numbers = {folder: folder.name.removeprefix(prefix) for folder in folders}
        return sorted(
            int(number)
            for folder, number in numbers.items()
            if number.isdecimal() and any((folder / name).exists() for name in names)
        )

    def _work(self, seed: int) -> Path:
        return self.work / f"{self.scale.name}-seed{seed}"

    def _backbone_folder(self, seed: int) -> Path:
        """Named by all that it is taught with: scales that agree in it share a backbone."""
        scale = self.scale
        taught = f"{scale.crop_scenes}-scenes-{scale.side}px-{scale.crop_epochs:g}-epochs"
        return self.work / f"backbone-seed{seed}-{taught}"

    def base_file(self) -> Path:
        """The configuration that every training starts from."""
        if self.config is not None:
            return self.config
        tree: dict[str, Any] = {}
        for key, value in scene_settings(self.scale).items():
            *groups, last = key.split(".")
            at = tree
            for group in groups:
                at = at.setdefault(group, {})
            at[last] = value
        file = self.work / f"{self.scale.name}.yaml"
        _write(file, json.dumps(tree, indent=1) + "\n")
        return file

    def backbone(self, seed: int) -> tuple[Path | None, str]:
        """The file that a seed's rows start from, taught where it isn't there, and its digest.

        Raises:
            UserError: the seed's records are of another backbone than this machine makes.
            RunError: it could not be taught.
        """
        given = any(word.startswith(BACKBONE_SETTING) for word in self.overrides)
        if given or self.config is not None:
            return None, self._given_backbone
        records, work = self.of_seed(seed), self._backbone_folder(seed)
        file, facts = work / "backbone.pt", work / "backbone.json"
        if not (file.exists() and facts.exists()):
            tell(f"seed {seed}: teaching the backbone")
            command = backbone_command(file, facts, self.scale, seed)
            self._run(command, work / "backbone.txt")
        found = backbone_facts(facts, file)
        known = records.read(BACKBONE)
        if known is None:
            records.write(BACKBONE, {**found, **surroundings()})
        elif known.get("digest") != found["digest"]:
            raise UserError(
                f"{records.folder} holds records of backbone {known.get('digest')!a}, and {file} "
                f"is {found['digest']}: a seed runs on one machine with one version. Put that "
                f"machine's {file.name} and {facts.name} there, or run another seed"
            )
        return file, found["digest"]

    @cached_property
    def _given_backbone(self) -> str:
        """Digest of the weights file that the user names; the name, where it is no file's.

        Raises:
            UserError: the file can't be read.
        """
        wanted = load_config(self.base_file(), self.overrides).model.backbone_weights
        if wanted is None or not Path(wanted).exists():
            return str(wanted)
        try:
            return hashlib.sha256(Path(wanted).read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise UserError(
                f"{BACKBONE_SETTING}={wanted}: can't be read ({error.strerror})"
            ) from error

    @cached_property
    def _base_text(self) -> str:
        """Of the configuration that all start from, for the digests; a file's bases are in it."""
        if self.config is not None:
            return to_yaml(load_config(self.config))
        return self.base_file().read_text(encoding="utf-8")

    def _run(self, module_words: Sequence[str], output: Path, processes: int = 1) -> None:
        """Raises RunError where it fails."""
        output.parent.mkdir(parents=True, exist_ok=True)
        code = run_into_file(module_words, processes, output)
        if code:
            raise RunError(f"{module_words[0]} … failed with code {code}; see {output}")

    def words(self, run: LabRun, seed: int) -> list[str]:
        """The settings of a training, those of its base and its backbone aside."""
        plain = PLAIN if self.config is not None else {}
        settings = run_settings(run, self._row_scale, seed)
        return [*as_words({**plain, **settings}), *self.overrides]

    @cached_property
    def _row_scale(self) -> LabScale:
        """The scale with as many training pictures as there are: a warm-up is one epoch of them."""
        config = load_config(self.base_file(), self.overrides)
        if self.config is None and config.data.kind == "scenes":
            return replace(self.scale, train_images=config.data.scenes.train_images)
        from megdet_hvd.data.factory import open_datasets

        data = open_datasets(config.data, is_main=True, wait=lambda: None)
        return replace(self.scale, train_images=len(data.train))

    def train(self, runs: Iterable[LabRun], seed: int) -> None:
        """Make the records that are missing.

        Raises:
            UserError: records of other settings or another backbone are there.
            RunError: a training failed.
        """
        file, digest = self.backbone(seed)
        records = self.of_seed(seed)
        base = self.base_file()
        self._refuse_others(seed, digest)
        trainings = []
        for run in dict.fromkeys(runs):
            words = self.words(run, seed)
            settings = self.training_digest(run, seed)
            if records.finished(run.name, settings, digest) is not None:
                continue
            if file is not None:
                words.append(f"{BACKBONE_SETTING}={json.dumps(str(file.resolve()))}")
            trainings.append(
                Training(
                    run,
                    ["--config", str(base), *words],
                    run.peak_rate(self.scale),
                    self._work(seed) / run.name,
                    known={
                        "seed": seed,
                        "scale": self.scale.name,
                        "settings": settings,
                        "words": self.words(run, seed),
                        "backbone": digest,
                        **surroundings(),
                    },
                    keep=self.keep or run in BASELINES,
                )
            )
        if trainings:
            tell(f"seed {seed}: {counted(len(trainings), 'training')} to be done")
        left = len(trainings)

        def done(training: Training) -> None:
            nonlocal left
            left -= 1
            record = training.record()
            if records.read(training.run.name) is None:
                records.write(training.run.name, record)
            else:  # the first stays, whatever has been drawn from it
                tell(f"seed {seed}: {training.run.name} has a record by now, of another sitting")
            training.clean()
            tell(f"seed {seed}: {training.run.name}: {in_a_word(record)}; {left} left")

        run_side_by_side(trainings, done, own_cores(self.jobs))

    def training_digest(self, run: LabRun, seed: int) -> str:
        """Digest of all settings of a training."""
        return settings_digest([*self.words(run, seed), self._base_text])

    def _refuse_others(self, seed: int, backbone: str) -> None:
        """Every record of the seed must be what this sitting would make, whatever it is to run.

        Raises:
            UserError: one is of other settings, or of another backbone.
        """
        records = self.of_seed(seed)
        runs = dict.fromkeys(run for one in EXPERIMENTS for run in one.runs(self.scale))
        for run in runs:
            if records.file(run.name).exists():
                records.finished(run.name, self.training_digest(run, seed), backbone)
        measured = [f"{name}-{at}" for name in VARIANCE_KINDS for at in VARIANCE_AT]
        for name in measured:
            if records.file(name).exists():
                records.finished(name, self.variance_digests(seed)[name], backbone)
        if records.file(OVERHEAD).exists():
            records.finished(OVERHEAD, self.overhead_digest(), "")

    def variance(self, seed: int) -> None:
        """Measure the gradient's variance, at the beginning of training and at its end."""
        self.train(BASELINES, seed)
        file, digest = self.backbone(seed)
        records = self.of_seed(seed)
        digests = self.variance_digests(seed)
        pictures = self._variance_pictures
        for name, (run, size) in VARIANCE_KINDS.items():
            for at in VARIANCE_AT:
                record = f"{name}-{at}"
                settings = digests[record]
                if records.finished(record, settings, digest) is not None:
                    continue
                tell(f"seed {seed}: {record}")
                out = self._work(seed) / f"{record}.json"
                folder = self._work(seed) / run.name
                if at == "end" and not folder.exists():
                    raise UserError(
                        f"{folder} is gone, whose weights are needed: move the record "
                        f"{records.file(run.name)} away, and it is trained again"
                    )
                if at == "end":
                    claim(folder, self.training_digest(run, seed), digest)
                command = [
                    "megdet_hvd.lab.gradients",
                    *self.words(run, seed),
                    "data.aspect_grouping=0",
                    *(() if file is None else (f"{BACKBONE_SETTING}={json.dumps(str(file))}",)),
                    *("--config", str(self.base_file()), "--out", str(out)),
                    *("--pictures", str(pictures)),
                    *("--sizes", *map(str, self._sizes(size))),
                    *(("--weights", str(folder)) if at == "end" else ()),
                    *(("--bn-size", str(size)) if size is not None else ()),
                ]
                self._run(command, self._work(seed) / "variance.txt")
                found = json.loads(out.read_text(encoding="utf-8"))
                known = {"seed": seed, "settings": settings, "backbone": digest}
                records.write(record, {**known, **surroundings(), **found})

    def variance_digests(self, seed: int) -> dict[str, str]:
        """Record of the gradient's variance → digest of all that it is measured with."""
        return {
            f"{name}-{at}": settings_digest(
                [
                    *(*self.words(run, seed), self._base_text),
                    json.dumps([name, at, self._variance_pictures, self._sizes(size)]),
                ]
            )
            for name, (run, size) in VARIANCE_KINDS.items()
            for at in VARIANCE_AT
        }

    def overhead_digest(self) -> str:
        """Digest of all that the overhead is measured with."""
        measured = json.dumps([BN_SIZES, self.scale.overhead_turns])
        return settings_digest([self._base_text, *self.overrides, measured])

    @property
    def _variance_pictures(self) -> int:
        """None of them is to come twice."""
        return min(self.scale.variance_pictures, self._row_scale.train_images)

    def _sizes(self, least: int | None) -> list[int]:
        """N, of which there are two batches at least.

        Raises:
            UserError: there are too few pictures for a slope.
        """
        pictures = self._variance_pictures
        wanted = [size for size in self.scale.variance_sizes if size >= (least or 1)]
        found = cut_twice(wanted, pictures)
        if len(found) < 2:
            raise UserError(
                f"variance: {pictures} training pictures are too few for two batches of each of "
                f"two sizes; {2 * wanted[1]} or more are needed"
            )
        return found

    def overhead(self, seed: int) -> None:
        """Measure what CGBN and recomputation cost; alone on the machine, or it says nothing.

        Once for all seeds: it does not depend on them.
        """
        begun = self.seeds_with_record(OVERHEAD)
        if begun and begun[0] != seed:
            tell(f"seed {seed}: {OVERHEAD} is for one seed, and {begun[0]} has it")
            return
        records = self.of_seed(seed)
        settings = self.overhead_digest()
        if records.finished(OVERHEAD, settings, "") is not None:
            return
        load = os.getloadavg()[0]
        tell(f"seed {seed}: overhead, on 2 processes (load now {load:.1f})")
        out = self._work(seed) / "overhead.json"
        command = [
            *("megdet_hvd.lab.overhead", *self.overrides, "--out", str(out)),
            *("--config", str(self.base_file()), "--turns", str(self.scale.overhead_turns)),
            *("--bn-sizes", *map(str, BN_SIZES)),
        ]
        self._run(command, self._work(seed) / "overhead.txt", processes=2)
        found = json.loads(out.read_text(encoding="utf-8"))
        known = {"seed": seed, "settings": settings, "backbone": "", "load": load}
        records.write(OVERHEAD, {**known, **surroundings(), **found})

    def found(self, seeds: Sequence[int], names: Iterable[str]) -> dict[tuple[str, int], LabRecord]:
        """The records that there are.

        Raises:
            UserError: one can't be read, or does not hold what a record must.
        """
        names, records = list(names), {seed: self.of_seed(seed) for seed in seeds}
        found: dict[tuple[str, int], LabRecord] = {}
        for seed, name in itertools.product(records, names):
            record = records[seed].read(name)
            if record is None:
                continue
            fault = fault_of(name, record)
            if fault is not None:
                raise UserError(
                    f"{records[seed].file(name)} is no record of this kind ({fault}); remove it "
                    "to do it again"
                )
            found[name, seed] = record
        return found

    def require_room(self) -> None:
        """Before hours of work: records can be written.

        Raises:
            UserError: they can't.
        """
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.records) as probe:
                probe.write(b"1")
        except OSError as error:
            raise UserError(
                f"{self.records}: the records can't be kept there ({error.strerror}); "
                "try another --out"
            ) from error


def tell(text: str) -> None:
    """A line on what is being done."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text.encode())
    except OSError as error:
        raise UserError(
            f"{file}: the records can't be kept there ({error.strerror}); try another --out"
        ) from error
