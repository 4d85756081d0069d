"""`CSVFiles`: what Lightning's CSVLogger takes: figures and the config alone."""

from __future__ import annotations

from pathlib import Path

from bnnlight.tracking.trackers.tracker import Tracker


class CSVFiles(Tracker):
    """Lightning's ``CSVLogger``."""

    def places(self) -> dict[str, str]:
        return {"CSV": str(Path(self.logger.log_dir, "metrics.csv"))}
