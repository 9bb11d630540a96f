"""A search for better settings: trials drawn by Optuna, trained by the face, judged on validation people.

STUDY/study.yaml      what is searched, on what
STUDY/data            the prepared data that all trials share
STUDY/journal.log     Optuna's own record; a study that was killed goes on from it
STUDY/trials.jsonl    one line per finished trial
STUDY/best.yaml       the best settings, for ``palate train --config``
STUDY/report.html     the search as a page
"""

from __future__ import annotations

import json
import multiprocessing
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from palate.data.store import load_prepared, prepare
from palate.errors import BundleError, DataError, PalateError, SettingsError, TrainingError
from palate.recommender import Recommender
from palate.schema import Dataset, Part
from palate.settings import Settings, read_yaml
from palate.train.progress import Silent
from palate.tune.progress import SearchDisplay, SilentSearch
from palate.tune.space import Space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
UNPRUNED = 4
"""Trials that run to their end before any is stopped early: there is nothing to compare them with."""
FIRST_PRUNING = 2
"""Passes every trial may make: after one or two, small learning rates look worse than they are."""


@dataclass(frozen=True)
class Plan:
    """What one study searches; the same in every process that works on it."""

    folder: Path
    given: dict[str, Any]
    """Settings of all trials: the data set's own, a config's and --set's."""
    space: Space
    seed: int

    @property
    def settings(self) -> Settings:
        return Settings.build(self.given)

    def open(self, worker: int = 0) -> optuna.Study:
        """The study, as its journal tells it."""
        smaller_is_better = self.settings.train.validate_metric == "loss"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.create_study(
                study_name="palate",
                storage=JournalStorage(JournalFileBackend(str(self.folder / "journal.log"))),
                # TPE: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011
                sampler=optuna.samplers.TPESampler(seed=self.seed + worker, n_startup_trials=6),
                pruner=optuna.pruners.MedianPruner(UNPRUNED, FIRST_PRUNING),
                direction="minimize" if smaller_is_better else "maximize",
                load_if_exists=True,
            )


@dataclass(frozen=True)
class Budget:
    """When to stop: so many finished trials, or so many minutes from now, whichever comes first."""

    trials: int | None
    minutes: float | None


class Watch(Silent):
    """Tells Optuna of every pass, and stops a trial that lags behind the others."""

    def __init__(self, trial: optuna.Trial, display: SearchDisplay) -> None:
        self.trial, self.display = trial, display

    def epoch(self, record: dict[str, float], metric_name: str, best: bool) -> None:
        del best
        number, value = int(record["epoch"]), record["metric"]
        self.trial.report(value, number)
        self.display.tell(f"trial {self.trial.number}, pass {number + 1}: {metric_name} {value:.4f}")
        if self.trial.should_prune():
            raise optuna.TrialPruned


def begin(
    dataset: Dataset, given: Mapping[str, Any], space: Space, folder: Path, *, seed: int, resume: bool
) -> Plan:
    """The study is there, with its data prepared and the settings as they are for a first trial.

    Raises:
        SettingsError: ``folder`` holds another study and ``resume`` is set, or something that is no study.
        DataError: nobody can be asked in the validation part.
    """
    tree = Settings.build(dataset.settings, given).model_dump(mode="json", exclude_unset=True)
    plan = Plan(folder, tree, space, seed)
    described = {
        "data": dataset.fingerprint,
        "given": tree,
        "space": {name: str(distribution) for name, distribution in space.distributions.items()},
    }
    record = folder / "study.yaml"
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not record.is_file()):
        raise SettingsError(
            f"{folder} holds something else than a study; name a folder that is new or empty."
        )
    if resume and record.is_file() and read_yaml(record) != described:
        raise SettingsError(
            f"{folder} is a study of other data, settings or another space. Give the same ones, or leave out "
            "--resume to begin afresh."
        )
    if not resume:
        for name in ("journal.log", "trials.jsonl", "best.yaml", "report.html"):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
    prepared = prepare(dataset, plan.settings, folder / "data")
    judged = plan.settings.evaluate
    if not len(
        prepared.questions(Part.VALIDATION, filter_seen=judged.filter_seen, cold_targets=judged.cold_targets)
    ):
        raise DataError("Nobody can be asked on validation data, so no setting can be told from another.")
    study = plan.open()
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # left by a process that was killed
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, "again": trial.number})
    if not study.trials:
        study.enqueue_trial(space.values_of(plan.settings), user_attrs={"as_given": True})
    return plan


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to an end of their own; those that a kill cut off do not count."""
    return [t for t in study.get_trials(deepcopy=False, states=FINISHED) if "seconds" in t.user_attrs]


def search(plan: Plan, budget: Budget, workers: int, display: SearchDisplay) -> None:
    """The budget is spent.

    Args:
        workers: processes that try settings at the same time and share the processor's threads.
        display: is told what is being done; with several workers, what has been done.

    Raises:
        PalateError: a worker could not go on.
    """
    deadline = None if budget.minutes is None else time.time() + 60 * budget.minutes
    study = plan.open()
    left = None if budget.trials is None else max(0, budget.trials - len(finished(study)))
    count(study, display)
    if workers == 1:
        while (left is None or left > 0) and (deadline is None or time.time() < deadline):
            run_trial(plan, study, display)
            count(study, display)
            left = None if left is None else left - 1
        return
    context = multiprocessing.get_context("spawn")
    tickets = context.Value("q", 2**62 if left is None else left)
    threads = max(1, torch.get_num_threads() // workers)
    processes = [
        context.Process(target=work, args=(plan, number, tickets, deadline, threads), daemon=True)
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        time.sleep(0.5)
        count(study, display)
    if any(process.exitcode for process in processes):
        raise TrainingError("A worker of the search stopped with an error; it is printed above.")


def count(study: optuna.Study, display: SearchDisplay) -> None:
    """The display shows how far the search is."""
    trials = finished(study)
    values = [
        trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None
    ]
    choose = min if study.direction == optuna.study.StudyDirection.MINIMIZE else max
    display.count(len(trials), choose(values) if values else None)


def work(plan: Plan, number: int, tickets: Any, deadline: float | None, threads: int) -> None:
    """One process of several: trial after trial while tickets and time last."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(threads)
    study = plan.open(number)
    while deadline is None or time.time() < deadline:
        with tickets.get_lock():
            if tickets.value <= 0:
                return
            tickets.value -= 1
        run_trial(plan, study, SilentSearch())


def run_trial(plan: Plan, study: optuna.Study, display: SearchDisplay) -> None:
    """One more trial is finished, whether it went well, was stopped early, or failed."""
    started = time.time()
    trial = study.ask()
    # The first trial changes nothing, so that the best is never worse than what was there before.
    unchanged = trial.user_attrs.get("as_given", False)
    plan.space.draw(trial, plan.space.values_of(plan.settings) if unchanged else plan.space.distributions)
    settings = Settings.build(plan.given, plan.space.settings_of(trial.params))
    display.tell(f"trial {trial.number}: {summary(trial.params)}")
    value, state = None, TrialState.COMPLETE
    try:
        recommender = Recommender(settings).fit_prepared(
            load_prepared(plan.folder / "data"), display=Watch(trial, display)
        )
        value = recommender.progress.best_metric
        trial.set_user_attr("passes", len(recommender.progress.history))
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except BundleError:
        raise
    except PalateError as error:
        state = TrialState.FAIL
        trial.set_user_attr("error", str(error))
    trial.set_user_attr("seconds", time.time() - started)
    study.tell(trial, value, state)


def summary(drawn: Mapping[str, Any]) -> str:
    """What a trial drew, on one line."""
    return ", ".join(
        f"{name.rpartition('.')[2]} {value:.2g}"
        if isinstance(value, float)
        else f"{name.rpartition('.')[2]} {value}"
        for name, value in drawn.items()
    )


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The best of the trials that were trained to their end.

    Raises:
        SettingsError: there is none.
    """
    if not any(trial.state == TrialState.COMPLETE for trial in finished(study)):
        raise SettingsError(
            "No trial was trained to its end. Give more --trials or --minutes, or look at trials.jsonl."
        )
    return study.best_trial


def write_results(plan: Plan) -> dict[str, Any]:
    """``trials.jsonl`` and ``best.yaml`` hold what is known; the same as plain numbers.

    Raises:
        SettingsError: no trial was trained to its end.
    """
    study = plan.open()
    best, trials = best_trial(study), [described(plan, trial) for trial in finished(study)]
    lines = "".join(json.dumps(trial, ensure_ascii=False) + "\n" for trial in trials)
    (plan.folder / "trials.jsonl").write_text(lines, encoding="utf-8")
    tree = Settings.build(plan.given, plan.space.settings_of(best.params))
    chosen = tree.model_dump(mode="json", exclude_unset=True)
    (plan.folder / "best.yaml").write_text(
        yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    as_given = next((trial for trial in trials if trial["as_given"] and trial["value"] is not None), None)
    return {
        "metric": plan.settings.train.validate_metric,
        "best": described(plan, best),
        "as_given": as_given,
        "importance": importance(study),
        "trials": trials,
        "settings": chosen,
    }


def described(plan: Plan, trial: FrozenTrial) -> dict[str, Any]:
    """A trial as plain numbers."""
    passes = trial.intermediate_values
    return {
        "trial": trial.number,
        "state": {TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped early"}.get(trial.state, "failed"),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "passes": [passes[number] for number in sorted(passes)],
        "seconds": round(trial.user_attrs.get("seconds", 0.0), 1),
        "as_given": trial.user_attrs.get("as_given", False),
        "settings": plan.space.settings_of(trial.params),
        "drawn": trial.params,
        **({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {}),
    }


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of the differences between trials that each setting explains (functional ANOVA); may be empty.

    Hutter et al., "An efficient approach for assessing hyperparameter importance", 2014.
    """
    done = [trial for trial in study.get_trials(states=(TrialState.COMPLETE,)) if trial.params]
    if len(done) < UNPRUNED or len({trial.value for trial in done}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
