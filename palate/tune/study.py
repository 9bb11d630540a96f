"""A search for better settings, in a folder from which it goes on after a kill.

STUDY/study.yaml      what is searched, on what
STUDY/data            the prepared data that all trials share
STUDY/trials.jsonl    one line per finished trial
STUDY/best.yaml       the best settings so far, for ``palate train --config``
STUDY/report.html     the search as a page
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from palate.data.source import read_dataset
from palate.data.store import Prepared, prepare
from palate.errors import DataError, SettingsError, TrainingError
from palate.evaluate.metrics import Metric
from palate.schema import Dataset, Part
from palate.settings import Settings, read_yaml
from palate.train.decide import decided
from palate.tune.progress import SilentSearch, TuneDisplay
from palate.tune.search import Search
from palate.tune.space import DEFAULT, Space, names_in, nested
from palate.tune.trials import State, Trial, TrialFile, best_of
from palate.tune.workers import Outcome, Verdict, train_here, train_in_processes

TRIALS = 20
"""Trials where no budget is given."""
WARM_UP = 0.25
"""Share of the passes that every trial may make: early on, small learning rates look worse than they are."""


@dataclass(frozen=True)
class Found:
    """What a study found."""

    folder: Path
    name: str
    """Of the data set."""
    metric: str
    trials: list[Trial]
    """In the order in which they ended."""
    best: Trial
    settings: dict[str, Any]
    """What ``best.yaml`` holds: what was searched, and what was given."""
    space: Space
    importance: dict[str, float]
    smaller_is_better: bool

    @property
    def current(self) -> Trial | None:
        """The trial of the current settings; None where their training failed."""
        return next((trial for trial in self.trials if trial.number == 0 and trial.value is not None), None)

    @property
    def gain(self) -> float | None:
        """By what share the best is better than the current settings, 0 or more; None where unknown."""
        current = self.current
        if current is None or not current.value or self.best.value is None:
            return None
        return abs(self.best.value - current.value) / abs(current.value)

    def to_json(self) -> dict[str, Any]:
        """JSON-able numbers and texts."""
        return {
            "study": str(self.folder),
            "report": str(self.folder / "report.html"),
            "config": str(self.folder / "best.yaml"),
            "metric": self.metric,
            "best": asdict(self.best),
            "current": asdict(self.current) if self.current else None,
            "gain": self.gain,
            "settings": self.settings,
            "importance": self.importance,
            "trials": [asdict(trial) for trial in self.trials],
        }


def tune(
    dataset: Dataset | str | Path,
    folder: str | Path,
    *,
    space: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    resume: bool = False,
    display: TuneDisplay | None = None,
) -> Found:
    """The budget is spent, ``folder`` holds the study, and its ``best.yaml`` the best settings.

    Trial 0 has the current settings, so the best is never worse. Only validation people are asked.

    Args:
        space: what is searched, ``{"model.width": [64, 128], "model.blocks": {"low": 1, "high": 4}}``; by
            default ``DEFAULT`` without what ``settings`` says.
        settings: what is the same in all trials; for a searched setting, its value in trial 0.
        seed: of every random draw; by default that of the settings.
        trials: finished trials of the whole study; without any budget, ``TRIALS``.
        minutes: after so many from now, running trials stop with their pass and do not count.
        workers: processes that share the threads. With one, the same seed gives the same trials.
        resume: go on with the study in ``folder``.
        display: is told how the search goes.

    Raises:
        SettingsError: the space or the settings cannot be used, or ``folder`` holds something else.
        DataError: the data cannot be used, or nobody can be asked on validation data.
        TrainingError: not one trial could be trained to its end.
    """
    for name, budget in (("trials", trials), ("minutes", minutes), ("workers", workers)):
        if budget is not None and budget <= 0:
            raise SettingsError(f"{name} is {budget}; wanted more than 0.")
    dataset = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    given = dict(settings or {})
    current = Settings.build(dataset.settings, given, {} if seed is None else {"seed": seed})
    if not current.recommends:
        raise SettingsError(
            "palate tune searches for better recommendations, and tasks name item_class alone. Add next_item."
        )
    Metric.parse(current.train.validate_metric)
    searched = Space.read(space) if space is not None else Space.read(DEFAULT).without(names_in(given))
    study = Study(Path(folder), dataset, current, given, searched, resume=resume)
    study.run(
        trials=TRIALS if trials is None and minutes is None else trials,
        minutes=minutes,
        workers=workers,
        display=display or SilentSearch(),
    )
    return study.found()


class Study:
    """Leads the trials of one folder."""

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        current: Settings,
        given: dict[str, Any],
        space: Space,
        *,
        resume: bool,
    ) -> None:
        """The folder is ready and its data are prepared; trials that ended before are known.

        Raises:
            SettingsError: ``folder`` holds something else, a study that is not to be resumed, or another one.
            DataError: the data cannot be used, or nobody can be asked on validation data.
        """
        self.folder, self.current, self.given, self.space = folder, current, given, space
        self.file = TrialFile(folder / "trials.jsonl")
        start(folder, self.file, resume)
        self.prepared: Prepared = prepare(dataset, current, folder / "data")
        self.current = current = decided(current, self.prepared)
        # The same for all trials, which are compared pass by pass, and for who trains with the best.
        passes = {"train": {"max_epochs": current.train.max_epochs}}
        self.given = Settings.build(given, passes).model_dump(exclude_unset=True)
        judging = current.evaluate
        asked = self.prepared.questions(
            Part.VALIDATION, filter_seen=judging.filter_seen, cold_targets=judging.cold_targets
        )
        if not len(asked):
            raise DataError("Nobody can be asked on validation data, so no settings can be told from others.")
        keep_identity(folder / "study.yaml", self.prepared, current, space, bool(self.file.read()))
        self.trials = self.file.read()
        self.file.write(self.trials)  # without a line that a crash cut off
        self.smaller_is_better = current.train.validate_metric == "loss"
        self.search = Search(
            space,
            space.values_of(current),
            self.trials,
            seed=current.seed,
            smaller_is_better=self.smaller_is_better,
            warm_up=max(1, round(WARM_UP * current.train.max_epochs)),
        )
        self.values: dict[int, dict[str, Any]] = {}
        self.wanted: int | None = None
        self.deadline: float | None = None
        self.display: TuneDisplay = SilentSearch()

    @property
    def best(self) -> Trial | None:
        return best_of(self.trials, self.smaller_is_better)

    def run(self, *, trials: int | None, minutes: float | None, workers: int, display: TuneDisplay) -> None:
        """The budget is spent."""
        self.wanted, self.display = trials, display
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        display.start(self.current.train.validate_metric, trials, minutes, self.trials, self.best)
        try:
            left = workers if trials is None else min(workers, trials - len(self.trials))
            if left == 1:
                train_here(self, self.prepared)
            elif left > 1:
                train_in_processes(self, self.folder / "data", left)
        finally:
            display.stop()

    # What workers ask

    def next_job(self) -> tuple[int, Settings] | None:
        """Number and settings of the next trial; None when the budget is spent or everything was tried."""
        begun = len(self.trials) + len(self.values)
        if (self.wanted is not None and begun >= self.wanted) or (self._late() and begun):
            return None
        drawn = self.search.draw()
        if drawn is None:
            return None
        number, self.values[drawn[0]] = drawn
        return number, Settings.build(self.current.model_dump(exclude_unset=True), nested(drawn[1]))

    def after_pass(self, number: int, epoch: int, value: float) -> Verdict:
        """Whether a trial is worth another pass."""
        self.display.passed(number, epoch, value)
        if number and self._late():
            return Verdict.DROP
        return Verdict.PRUNE if self.search.lags_behind(number, epoch, value) else Verdict.GO_ON

    def ended(self, number: int, outcome: Outcome) -> None:
        """The trial stands in the table, and ``best.yaml`` is up to date."""
        values = self.values.pop(number)
        if outcome.state == State.DROPPED:
            self.search.drop(number)
            return
        trial = Trial(
            number,
            outcome.state,
            outcome.best,
            values,
            outcome.passes,
            round(outcome.seconds, 3),
            outcome.error,
        )
        self.search.finish(trial)
        self.file.add(trial)
        self.trials.append(trial)
        best = self.best
        if best is trial:
            write_best(self.folder / "best.yaml", self._settings_of(trial), trial, self.metric)
        self.display.ended(trial, best)

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    # What was found

    @property
    def metric(self) -> str:
        return self.current.train.validate_metric

    def found(self) -> Found:
        """What the trials say.

        Raises:
            TrainingError: none was trained to its end.
        """
        best = self.best
        if best is None:
            errors = [trial.error for trial in self.trials if trial.error]
            raise TrainingError(
                f"None of {len(self.trials)} trials was trained to its end; {self.file.path} says why."
                + (f" The first: {errors[0]}" if errors else "")
            )
        return Found(
            folder=self.folder,
            name=self.prepared.name,
            metric=self.metric,
            trials=list(self.trials),
            best=best,
            settings=self._settings_of(best),
            space=self.space,
            importance=self.search.importance(self.trials),
            smaller_is_better=self.smaller_is_better,
        )

    def _settings_of(self, trial: Trial) -> dict[str, Any]:
        """What was searched and what was given, and nothing of the defaults."""
        whole = Settings.build(self.given, nested(trial.values))
        return whole.model_dump(mode="json", exclude_unset=True)


def start(folder: Path, file: TrialFile, resume: bool) -> None:
    """``folder`` is there, and may be written to.

    Raises:
        SettingsError: it holds something else than a study, or trials that are not to be resumed.
    """
    strangers = folder.is_dir() and any(folder.iterdir()) and not (folder / "study.yaml").exists()
    if folder.is_file() or strangers:
        raise SettingsError(
            f"{folder} holds something else than a study; name a folder that is new or empty."
        )
    if not resume and (trials := file.read()):
        raise SettingsError(
            f"{folder} holds a study with {len(trials)} finished trials. Go on with it (--resume), or name "
            "another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").touch()  # so that a kill while data are prepared leaves a study behind


def keep_identity(path: Path, prepared: Prepared, current: Settings, space: Space, has_trials: bool) -> None:
    """``path`` says what the study searches, on what.

    Raises:
        SettingsError: there are trials, and they searched something else.
    """
    digest = hashlib.sha256()
    for column in (prepared.histories.offsets, prepared.histories.item, prepared.part):
        digest.update(np.ascontiguousarray(column).tobytes())
    identity = {
        "data": digest.hexdigest(),
        "settings": current.model_dump(mode="json", exclude={"train": {"threads", "checkpoint_steps"}}),
        "space": space.to_json(),
    }
    if has_trials:
        before = read_yaml(path)
        changed = [name for name in identity if before.get(name) != identity[name]]
        if changed:
            raise SettingsError(
                f"{path.parent} is a study with other {' and '.join(changed)}. Resume it with those of "
                f"{path}, or name another folder."
            )
    path.write_text(yaml.safe_dump(identity, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_best(path: Path, settings: dict[str, Any], trial: Trial, metric: str) -> None:
    """``path`` holds the settings of this trial, whole at any time."""
    partial = path.with_name(path.name + ".partial")
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    partial.write_text(
        f"# Trial {trial.number} of a search: {metric} {trial.value:.4f} on validation people.\n{text}",
        encoding="utf-8",
    )
    partial.replace(path)
