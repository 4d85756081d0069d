"""Builds each method of a matrix once, so that a wrong config is found before hours are spent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from bnnlight.console.errors import explain
from bnnlight.experiment.experiment import Experiment
from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.plan.reading import Options
from bnnlight.matrix.runs.run import Run, final_runs, search_runs


def check(plan: Plan, names: Sequence[str], folder: Path, extra: Options) -> dict[str, dict[str, int]]:
    """Builds each method's model, data and trainer once, and reads the first one's data; about a second a method.

    Args:
        plan: of the matrix.
        names: of the methods.
        folder: of the runs; nothing is written there.
        extra: options handed on to every run.

    Returns:
        Method → ``trained``, the number of trained numbers of its network.

    Raises:
        ValueError: a config is wrong; one line with the method, unless all methods have the same fault.
    """
    records, faults = {}, {}
    for name in names:
        for run in _one_of_each(plan, name, folder, extra):
            try:
                experiment = _build(run, plan)
            except Exception as error:
                faults[name] = explain(error)[1]
                break
        else:
            trained = sum(p.numel() for p in experiment.model.parameters() if p.requires_grad)
            if not records:
                try:
                    experiment.datamodule.prepare_data()
                    experiment.datamodule.setup("fit")
                except Exception as error:
                    raise ValueError(f"{plan.path}: {explain(error)[1]}") from error
            records[name] = {"trained": trained}
    if faults:
        name, line = next(iter(faults.items()))
        shared = len(faults) == len(plan.methods) > 1 and len(set(faults.values())) == 1
        more_faults = f" (and {len(faults) - 1} more methods have faults)" if len(faults) > 1 and not shared else ""
        raise ValueError(f"{plan.path}: {'' if shared else f'methods, {name}: '}{line}{more_faults}")
    return records


def _one_of_each(plan: Plan, name: str, folder: Path, extra: Options) -> Iterator[Run]:
    method = plan.methods[name]
    yield from list(search_runs(plan, method, folder, extra))[:1]
    yield from list(final_runs(plan, method, method.search.values[0] if method.search else None, folder, extra))[:1]


def _build(run: Run, plan: Plan) -> Experiment:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment = Experiment("matrix", "", run.args())
    chosen = experiment.config.checkpoint
    plans = {"monitor": f"val/{plan.metric}", "mode": plan.direction}
    for name, planned in plans.items():
        if planned != chosen[name]:
            raise ValueError(
                f"the best checkpoint is that of checkpoint.{name} {chosen[name]!r}, where the matrix asks for "
                f"{planned!r}: set checkpoint.{name} in the config, or change metric or direction"
            )
    return experiment
