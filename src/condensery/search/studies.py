"""Optuna studies on grounds. Optuna is optional: ``pip install 'condensery[search]'``.

`objective` makes a ground into what ``study.optimize`` takes, whatever the study's sampler, pruner and storage.
`Study` keeps one in a journal file: it can be stopped and goes on exactly where it was, and several processes can work
on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed

from condensery.search.grounds import Ground, Report
from condensery.search.settings import Config, Settings
from condensery.search.trials import PRUNED, Trial, attempt

if TYPE_CHECKING:
    import optuna

_NAME = "search"
_CONFIG, _CPU, _SECONDS, _WHY = "config", "cpu", "seconds", "why"


def load_optuna() -> Any:
    """The module.

    Raises:
        ImportError: With what to type, if it is not there.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "Optuna is not installed; pip install 'condensery[search]', or search by grid, random or reinforce."
        ) from error
    return optuna


def objective(space: Settings, ground: Ground) -> Callable[[optuna.Trial], float]:
    """A ground as an objective of Optuna, to be maximised.

    The trial suggests a configuration of the space; looks at validation are reported to it, and it is pruned where it
    says so. A configuration that makes nothing, or whose score is not finite, counts as pruned: as worse than the
    others. The configuration and the times are kept as the trial's user attributes, see `trials_of`.

    Args:
        space: What is searched.
        ground: What configurations are tried on: real data or condensed data.

    Example:
        >>> import optuna
        >>> from condensery.search import Float
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> space = Settings({"x": Float(-1.0, 1.0)})
        >>> study.optimize(objective(space, lambda config, report: -config["x"] ** 2), n_trials=20)
        >>> abs(study.best_params["x"]) < 0.2
        True
    """
    module = load_optuna()

    def tried(trial: optuna.Trial) -> float:
        def report(look: int, score: float) -> None:
            trial.report(score, look)
            if trial.should_prune():
                raise module.TrialPruned

        wall, cpu = time.perf_counter(), time.process_time()

        def suggested(config: Config, report: Report | None = None) -> float:
            config = space.suggest(trial)
            trial.set_user_attr(_CONFIG, config)
            return ground(config, report)

        try:
            found = attempt(suggested, {}, trial.number, report)
        except module.TrialPruned:
            found = Trial(trial.number, {}, None, PRUNED, time.perf_counter() - wall, time.process_time() - cpu)
        for name, value in ((_CPU, found.cpu), (_SECONDS, found.seconds), (_WHY, found.why)):
            trial.set_user_attr(name, value)
        if found.score is None:
            raise module.TrialPruned
        return found.score

    return tried


def trials_of(study: optuna.Study) -> list[Trial]:
    """The trials of a study with `objective` that came to an end, in the order of their numbers.

    What was interrupted is left out. A trial that was infeasible before it had a configuration has an empty one.
    """
    module = load_optuna()
    ended = (module.trial.TrialState.COMPLETE, module.trial.TrialState.PRUNED)
    found = []
    for trial in study.get_trials(deepcopy=False, states=ended):
        kept = trial.user_attrs
        why = str(kept.get(_WHY, ""))
        score = trial.value if trial.state == module.trial.TrialState.COMPLETE else None
        times = float(kept.get(_SECONDS, 0.0)), float(kept.get(_CPU, 0.0))
        found.append(Trial(trial.number, dict(kept.get(_CONFIG, {})), score, why, *times))
    return sorted(found, key=lambda t: t.number)


@dataclass(frozen=True)
class Study:
    """A study in a journal file.

    Each trial's suggestions come from a sampler made for it, seeded by the seed, the worker and the number of trials
    that have ended. With one worker a study that was stopped therefore makes the trials that it would have made.

    Args:
        path: The journal.
        sampler: Makes a sampler, called with ``seed=``: a class such as ``optuna.samplers.TPESampler``, or a partial
            function with other settings of it.
        pruner: Decides which trials to end early, or ``None`` to end none.
        seed: Of the samplers.

    Raises:
        ImportError: If Optuna is not installed.
    """

    path: Path
    sampler: Callable[..., optuna.samplers.BaseSampler]
    pruner: optuna.pruners.BasePruner | None = None
    seed: int = 0

    def open(self) -> optuna.Study:
        """The study as it is in the journal; a new one where there is none."""
        module = load_optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return module.create_study(
            study_name=_NAME,
            storage=JournalStorage(JournalFileBackend(str(self.path))),
            sampler=self.sampler(seed=self.seed),
            pruner=self.pruner or module.pruners.NopPruner(),
            direction="maximize",
            load_if_exists=True,
        )

    def trials(self) -> list[Trial]:
        """What has been tried."""
        return trials_of(self.open()) if self.path.is_file() else []

    def forget_interrupted(self) -> None:
        """Mark trials that were interrupted as failed; only while no process works on the study."""
        module = load_optuna()
        study = self.open()
        for trial in study.get_trials(deepcopy=False, states=(module.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=module.trial.TrialState.FAIL)

    def run(self, space: Settings, ground: Ground, trials: int, *, worker: int = 0) -> Iterator[Trial]:
        """Try configurations until there are so many, the trials of other workers included.

        Args:
            space: What is searched.
            ground: What configurations are tried on.
            trials: How many in all, those of the journal included.
            worker: Which of several processes this is.

        Yields:
            The trials made here.
        """
        module = load_optuna()
        study, tried = self.open(), objective(space, ground)
        states, made = module.trial.TrialState, list[int]()

        def note(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            made.append(trial.number)

        while True:
            ended = len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))
            under_way = len(study.get_trials(deepcopy=False, states=(states.RUNNING,)))
            if ended + under_way >= trials:
                return
            study.sampler = self.sampler(seed=_mixed(self.seed, worker, ended))
            study.optimize(tried, n_trials=1, callbacks=[note])
            yield next(trial for trial in trials_of(study) if trial.number == made[-1])

    def run_workers(self, space: Settings, ground: Ground, trials: int, workers: int) -> Iterator[int]:
        """The same by several processes, one thread each.

        Args:
            space: What is searched.
            ground: What configurations are tried on; it is pickled.
            trials: How many in all, those of the journal included.
            workers: Processes.

        Yields:
            The workers that have ended, by their number.
        """
        self.open()  # made once, before the workers find it
        jobs = (delayed(_work)(self, space, ground, trials, worker) for worker in range(workers))
        yield from Parallel(n_jobs=workers, inner_max_num_threads=1, return_as="generator_unordered")(jobs)


def _work(study: Study, space: Settings, ground: Ground, trials: int, worker: int) -> int:
    load_optuna().logging.set_verbosity(load_optuna().logging.ERROR)
    for _ in study.run(space, ground, trials, worker=worker):
        pass
    return worker


def _mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
