"""A logger of one's own: trackio, which has W&B's calls and keeps runs on this machine.

pip install trackio
PYTHONPATH=examples bnnlight fit --config quickstart --trainer.logger trackio_run.TrackioRun
trackio show --project bnnlight
"""

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class TrackioRun(Logger):
    """Hands figures, the config and pictures over.

    Args:
        project: that the run belongs to.
        run: its name; trackio's own choice unless given.
    """

    def __init__(self, project: str = "bnnlight", run: str | None = None) -> None:
        super().__init__()
        self.project, self.title = project, run
        self.run = None

    @property
    @rank_zero_experiment
    def experiment(self):
        if self.run is None:
            import trackio

            # of the run's name it makes one run again when it goes on
            self.run = trackio.init(project=self.project, name=self.title, resume="allow")
        return self.run

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str | None:
        return self.title

    @rank_zero_only
    def log_metrics(self, metrics, step=None):
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params):
        self.experiment.config.update(params)

    @rank_zero_only
    def log_image(self, key, images, step=None):
        """Where a logger has this method, as W&B's has, pictures go there."""
        import trackio

        for image in images:
            self.experiment.log({key: trackio.Image(image)}, step=step)

    @rank_zero_only
    def finish(self):
        """Called at the end, once all is logged."""
        self.experiment.finish()
