# SPDX-License-Identifier: MIT
"""Run of an evaluation: track the sequences of a data set, write the masks, score them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros import atomic, work_folder
from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.evaluation import probabilities as kept
from xmem_ros.evaluation.clock import Clock, machine, rate
from xmem_ros.evaluation.datasets import read_dataset
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.output import PROBABILITIES, Output, named_errors, write_mask
from xmem_ros.evaluation.processes import Processes
from xmem_ros.evaluation.scores import check_scorer, overall, score_sequence
from xmem_ros.evaluation.settings import Run, Settings
from xmem_ros.evaluation.tracking import Trackers, track_sequence
from xmem_ros.progress import Bar
from xmem_ros.weights.checkpoint import fingerprint, load_network
from xmem_ros.weights.files import find_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xmem_ros.evaluation.datasets import Sequence


def evaluate(
    dataset: str, root: Path, *, output: Path, scores: Path | None = None, progress: bool = True, **options: Any
) -> dict[str, Any]:
    """Track every sequence of a data set and score the masks.

    Masks are palette PNGs with the data set's values; see `output` for the layout. The folder of a
    sequence appears when it is complete; later runs with the same settings keep it. Processes of
    torchrun share the sequences.

    Arguments:
        dataset: a name in `DATASETS`.
        root: folder of the data set.
        output: folder for the masks.
        scores: folder for the probabilities of each pass, with several passes; None: not kept.
        progress: whether to show a bar.
        options: other fields of `Settings`.

    Returns:
        `J`, `F`, `J&F` in percent over all objects (None if only a server has the ground truth),
        `fps`, the settings, and `sequences`: name → scores and rate of that sequence.

    Raises:
        XMemError: the data set, weights, device or output folder cannot be used.
    """
    settings = Settings(dataset=dataset, root=root, **options)
    processes = Processes.join()
    try:
        return Evaluation(settings, output, scores, processes).run(progress=progress and processes.rank == 0)
    finally:
        processes.leave()


class Evaluation:
    """Sequences, passes and trackers of an evaluation.

    The constructor checks the input and raises `XMemError` before tracking starts.
    """

    def __init__(self, settings: Settings, output: Path, scores: Path | None, processes: Processes) -> None:
        self.settings, self.scores, self.processes = settings, scores, processes
        network = load_network(find_weights(settings.weights))
        weights = fingerprint(network.state_dict())
        self.runs = settings.runs(network.config)
        self.sequences = [sequences_of(settings, run) for run in self.runs]  # one list for each pass
        self.first = self.sequences[0]
        self.counts = count_objects(self.sequences, ignore_void=settings.ignore_void)
        if any(sequence.scored for sequence in self.first):
            check_scorer()  # before hours of tracking
        self.trackers = Trackers(network, settings, processes.device(settings.device))
        self.machine = machine(self.trackers.device, self.trackers.precision)
        self.record = settings.record(network.config)
        self.output = Output(output, settings)
        if processes.rank == 0:
            made_by = {**self.record, 'precision': self.trackers.precision, 'network': weights}
            self.output.claim({**made_by, 'root': str(settings.root.resolve())})
        processes.wait()

    def run(self, *, progress: bool) -> dict[str, Any]:
        """Track unfinished sequences, score all, and pack the zip for a server."""
        mine = self.processes.share(range(len(self.first)), lambda i: len(self.first[i].frames) * (2 + self.count(i)))
        total = sum(len(self.first[i].frames) for i in mine) * len(self.runs)
        with Bar(total=total, unit='frame', disable=not progress) as bar:
            for index in mine:
                bar.set_description(self.first[index].name, refresh=False)
                if self._is_finished(self.first[index]):
                    bar.update(len(self.first[index].frames) * len(self.runs))
                else:
                    self._track(index, bar)
        bar = Bar([self.first[i] for i in mine], desc='scoring', unit='sequence', disable=not progress)
        sequences = {sequence.name: self._score(sequence) for sequence in bar}
        sequences = dict(sorted(self.processes.gather(sequences).items()))
        timed_on, notes = self._notes()
        for name, scores in sequences.items():
            scores['fps'] = rate(notes.get(name, {}))
        result = {
            **overall(sequences),
            'fps': rate(*notes.values()),
            **self.record,
            **timed_on,
            'processes': self.processes.count,
            'sequences': sequences,
        }
        if self.settings.on_server and self.processes.rank == 0:
            result['zip'] = str(self.output.zip(self.first))
        return result

    def _notes(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the machine that tracked the sequences, and the facts of each.

        If several machines tracked them, return this machine and only its own sequences.
        """
        notes = {name: facts for name, facts in self.output.notes().items() if name in self.counts}
        machines = [{key: facts.get(key) for key in self.machine} for facts in notes.values()]
        if machines and all(other == machines[0] for other in machines):
            return machines[0], notes
        own = {name: facts for name, facts in notes.items() if self.machine.items() <= facts.items()}
        return self.machine, own

    def count(self, index: int) -> int:
        """Return the number of objects of a sequence."""
        return self.counts[self.first[index].name]

    def _is_finished(self, sequence: Sequence) -> bool:
        """Whether its masks are complete, and the probabilities if they are kept."""
        if not self.output.is_finished(sequence):
            return False
        if self.scores is None or not self.settings.scales:
            return True
        folders = [self.scores / run.name / sequence.name for run in self.runs]
        return all((folder / f'{stem}.png').is_file() for folder in folders for stem in sequence.written)

    def _score(self, sequence: Sequence) -> dict[str, Any]:
        if not sequence.scored:
            return {'J': None, 'F': None, 'J&F': None, 'frames': 0, 'objects': {}, 'unseeded': []}
        return score_sequence(sequence, self.output.folder_of(sequence), ignore_void=self.settings.ignore_void)

    def _track(self, index: int, bar: Bar) -> None:
        """Run all passes over a sequence; its folder appears when it is complete."""
        sequence = self.first[index]
        clock = Clock()
        with self.output.filling(sequence) as folder, self._scores_folder() as scores:
            for run, sequences in zip(self.runs, self.sequences, strict=True):
                self._pass(run, sequences[index], folder, scores, clock, bar)
            if self.settings.scales:
                for stem in sequence.written:
                    passes = (kept.read(scores / run.name / sequence.name / f'{stem}.png') for run in self.runs)
                    write_mask(folder / f'{stem}.png', kept.merge(passes))
        self.output.note(self.processes.rank, sequence.name, {**clock.facts(), **self.machine})

    def _pass(self, run: Run, sequence: Sequence, folder: Path, scores: Path, clock: Clock, bar: Bar) -> None:
        tracker = self.trackers.warm(run, self.counts[sequence.name], sequence)
        wanted, merged = set(sequence.written), bool(self.settings.scales)
        for frame in track_sequence(tracker, sequence, run, self.settings.ignore_void, probabilities=merged):
            clock.add(frame.seconds, frame.step_seconds)
            bar.update()
            if frame.name not in wanted:
                continue
            if merged:
                assert frame.probabilities is not None
                path = scores / run.name / sequence.name / f'{frame.name}.png'
                kept.write(path, kept.truncate(frame.probabilities), frame.planes)
            else:
                write_mask(folder / f'{frame.name}.png', frame.values)

    @contextmanager
    def _scores_folder(self) -> Iterator[Path]:
        """Yield the folder of probabilities: the one given, or a temporary one."""
        if self.scores is not None or not self.settings.scales:
            yield self.scores or Path()
            return
        with named_errors(self.output.folder):
            folder = atomic.temporary_name(self.output.folder / PROBABILITIES)
            work_folder.make(folder)
        try:
            yield folder
        finally:
            work_folder.remove(folder)


def sequences_of(settings: Settings, run: Run) -> list[Sequence]:
    """Read the sequences of a data set for one pass; raises `XMemError`."""
    options = ReadOptions(
        settings.split,
        run.size,
        save_all=settings.save_all,
        late_objects=settings.late_objects,
        sparse=settings.sparse,
        ignore_void=settings.ignore_void,
    )
    sequences = read_dataset(settings.dataset, settings.root, options)
    if not any(sequence.written for sequence in sequences):
        raise ParameterError(f'{settings.root}: no frame of {settings.about.title} requires a mask; check the folder')
    return sequences


def count_objects(passes: list[list[Sequence]], *, ignore_void: bool = False) -> dict[str, int]:
    """Count the objects of each sequence; each pass may have other seed files.

    Raises:
        XMemError: a mask cannot be used, or two passes have different objects.
    """
    counts = {}
    for versions in zip(*passes, strict=True):
        first, *others = ((version, version.check_seeds(ignore_void=ignore_void)) for version in versions)
        for other in others:
            odd = sorted(set(first[1]) ^ set(other[1]))
            if odd:
                (_, known), (lacking, _) = (first, other) if odd[0] in first[1] else (other, first)
                raise SeedError(
                    f'{lacking.seeds[known[odd[0]].stem].path}: shows no object {odd[0]}, but {known[odd[0]]} does; '
                    'the seeds of merged passes must show the same objects; correct one of the two masks'
                )
        counts[first[0].name] = len(first[1])
    return counts
