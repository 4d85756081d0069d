"""`MLflow`: what MLflow takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bnnlight.tracking.trackers.tracker import Tracker


class MLflow(Tracker):
    """Takes pictures under their step, and as files the config and tables, which its page shows. It has no histograms.

    Its parameters are text of 250 characters at most, by Lightning, and cannot be changed. So ``config.yaml`` goes
    along in full, and a run that goes on leaves the parameters as they are.
    """

    def picture(self, key: str, path: Path, step: int) -> None:
        with Image.open(path) as picture:
            self.logger.experiment.log_image(self.logger.run_id, picture.convert("RGB"), key=key, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO()
        # its own tables need pandas, and its page shows a CSV as a table too
        csv.writer(text).writerows([columns, *rows])
        self.logger.experiment.log_text(self.logger.run_id, text.getvalue(), f"{key}.csv")

    def config(self, config: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
        client, run_id = self.logger.experiment, self.logger.run_id
        if client.get_run(run_id).data.params:
            client.update_run(run_id, status="RUNNING")
        else:
            self.logger.log_hyperparams(dict(config))
        for key, value in own.items():
            client.set_tag(run_id, f"bnnlight.{key}", str(value))
        client.log_artifact(run_id, str(path))

    def to_go_on(self) -> dict[str, str]:
        uri = self._uri()
        # another folder has another default; a server's address may have a password in it
        local = {"tracking_uri": uri} if uri.startswith(("sqlite:", "file:")) else {}
        return {"run_id": self.logger.run_id, **local}

    def places(self) -> dict[str, str]:
        scheme, slashes, rest = self._uri().partition("://")
        return {"MLflow run": f"{self.logger.run_id} of {scheme}{slashes}{rest.rpartition('@')[2]}"}

    def _uri(self) -> str:
        return str(getattr(self.logger.experiment, "tracking_uri", ""))
