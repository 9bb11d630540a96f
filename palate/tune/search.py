"""What to try next and what to stop early: Optuna's part in a study.

Optuna holds nothing that is not in ``trials.jsonl`` too, and trial n is drawn with a random generator of its
own. So a study that was killed goes on, with one worker, exactly as it would have gone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from palate.tune.space import Choice, Space
from palate.tune.trials import State, Trial

RANDOM_TRIALS = 6
"""Trials after the first that are drawn near the current settings before TPE takes over."""
KEPT = 0.5
"""Chance that such a trial keeps a setting as it is: good settings are rarely wrong everywhere at once."""
UNPRUNED = 4
"""Trials that run to their end before any is stopped early: there is nothing to compare them with."""
REDRAWN = 100
"""Draws of a trial before the space counts as tried out."""


class Search:
    """A study as Optuna sees it.

    TPE: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011; here with all settings together
    (Falkner et al., 2018). Pruning: a trial is stopped whose best pass is worse than the median of the others
    after as many passes (Golovin et al., "Google Vizier", 2017).
    """

    def __init__(
        self,
        space: Space,
        current: Mapping[str, Any],
        trials: Iterable[Trial],
        *,
        seed: int,
        smaller_is_better: bool,
        warm_up: int,
    ) -> None:
        """The search stands where these trials have brought it.

        Args:
            current: the searched settings as they are now, the values of trial 0.
            warm_up: passes that every trial may make.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.current, self.seed = space, dict(current), seed
        self.distributions = {name: _distribution(space, name) for name in space.parts}
        self.study = optuna.create_study(
            direction="minimize" if smaller_is_better else "maximize",
            pruner=optuna.pruners.MedianPruner(UNPRUNED, warm_up),
        )
        self.running: dict[int, optuna.Trial] = {}
        self.known: dict[int, str] = {}
        for trial in trials:
            self._remember(trial)

    def draw(self) -> tuple[int, dict[str, Any]] | None:
        """The next trial and its values, or None where nothing is left that was not tried before.

        The numbers have no gap: a trial that was begun and never ended is drawn again.
        """
        number = next(n for n in range(len(self.known) + 1) if n not in self.known)
        for attempt in range(REDRAWN if number else 1):
            generator = np.random.default_rng((self.seed, number, attempt))
            self.study.sampler = self._sampler(number, int(generator.integers(2**31)))
            inside = {name: value for name, value in self.current.items() if self.space.holds(name, value)}
            if number <= RANDOM_TRIALS:
                kept = generator.random(len(inside)) < (KEPT if number else 1.0)
                fixed = [name for name, keep in zip(inside, kept, strict=True) if keep]
                self.study.enqueue_trial(self._encoded({name: inside[name] for name in fixed}))
            drawn = self.study.ask()
            names = self.distributions if number else inside  # a value outside of the space is not drawn
            found = {name: self._suggest(drawn, name) for name in names}
            values = {**self.current, **self._decoded(found)} if number else dict(self.current)
            if number == 0 or _text(values) not in self.known.values():
                self.running[number], self.known[number] = drawn, _text(values)
                return number, values
            self.study.tell(drawn, state=TrialState.FAIL)
        return None

    def lags_behind(self, number: int, epoch: int, value: float) -> bool:
        """Whether to stop a running trial that had this value after pass ``epoch`` (from 0)."""
        trial = self.running[number]
        trial.report(value, epoch)
        return number > 0 and trial.should_prune()

    def drop(self, number: int) -> None:
        """A running trial was never begun."""
        self.study.tell(self.running.pop(number), state=TrialState.FAIL)  # TPE does not look at these
        del self.known[number]

    def finish(self, trial: Trial) -> None:
        """A running trial has ended, and what comes next learns from it."""
        self.drop(trial.number)
        self._remember(trial)

    def _remember(self, trial: Trial) -> None:
        self.known[trial.number] = _text(trial.values)
        self.study.add_trial(self._frozen(trial, done=trial.state == State.DONE))

    def _frozen(self, trial: Trial, done: bool) -> optuna.trial.FrozenTrial:
        """The trial in Optuna's words; one that failed counts as pruned before its first pass."""
        inside = {name: value for name, value in trial.values.items() if self.space.holds(name, value)}
        passes = [] if trial.state == State.FAILED else trial.passes
        return create_trial(
            state=TrialState.COMPLETE if done else TrialState.PRUNED,
            value=trial.value if done else None,
            params=self._encoded(inside),
            distributions={name: self.distributions[name] for name in inside},
            intermediate_values=dict(enumerate(passes)),
        )

    def importance(self, trials: Iterable[Trial]) -> dict[str, float]:
        """Share of the differences between trials that each setting explains; empty where little is known.

        Functional ANOVA (Hutter et al., "An efficient approach for assessing hyperparameter importance",
        2014). Trials that were stopped early count with the best value that they had.
        """
        inside = [
            trial
            for trial in trials
            if trial.value is not None
            and all(self.space.holds(name, value) for name, value in trial.values.items())
        ]
        if len(inside) <= UNPRUNED or len({trial.value for trial in inside}) < 2:
            return {}
        study = optuna.create_study(direction=self.study.direction)
        study.add_trials([self._frozen(trial, done=True) for trial in inside])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {name: float(share) for name, share in shares.items()}

    def _sampler(self, number: int, seed: int) -> BaseSampler:
        if number <= RANDOM_TRIALS:
            return RandomSampler(seed)
        return TPESampler(seed=seed, n_startup_trials=1)

    def _suggest(self, trial: optuna.Trial, name: str) -> Any:
        match self.distributions[name]:
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(name, choices)
            case IntDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_int(name, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                value = trial.suggest_float(name, low, high, step=step, log=log)
                return value if step else min(max(float(f"{value:.4g}"), low), high)  # people will read it

    def _encoded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Choices as JSON texts: Optuna's are single numbers and texts, ours may be lists."""
        return {
            name: json.dumps(value) if isinstance(self.space.parts[name], Choice) else value
            for name, value in values.items()
        }

    def _decoded(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: json.loads(value) if isinstance(self.space.parts[name], Choice) else value
            for name, value in found.items()
        }


def _distribution(space: Space, name: str) -> BaseDistribution:
    part = space.parts[name]
    if isinstance(part, Choice):
        return CategoricalDistribution([json.dumps(value) for value in part.values])
    with warnings.catch_warnings():  # a range that does not end on a step ends on the last one before
        warnings.filterwarnings("ignore", message="The distribution is specified by")
        if part.whole:
            return IntDistribution(int(part.low), int(part.high), log=part.log, step=int(part.step or 1))
        return FloatDistribution(float(part.low), float(part.high), log=part.log, step=part.step)


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
