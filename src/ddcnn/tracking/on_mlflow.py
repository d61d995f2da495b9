"""MLflow: the server that ``MLFLOW_TRACKING_URI`` names, or files in ``mlruns/`` beside the run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddcnn.config import Config
from ddcnn.tracking.tracker import Tracker

_EXPERIMENT = "ddcnn"
_TAG = "ddcnn.run"
_AT_ONCE = 500  # of a batch, less than MLflow's limit; parameters 100 at once
_LONGEST = 500  # characters of a parameter


class OnMlflow(Tracker):
    """Logs to the experiment ``ddcnn``, or the one that ``MLFLOW_EXPERIMENT_NAME`` names."""

    def begin_run(self, place: Path, name: str, config: Config, *, resuming: bool) -> str:
        """Begin a run, or go on with that of a run that is resumed."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before it is imported: it would tell its makers
        from mlflow import MlflowClient
        from mlflow.entities import Param

        where = os.environ.get("MLFLOW_TRACKING_URI")
        if where is None:
            where = (place / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for this before it writes files
        self._client = MlflowClient(tracking_uri=where)
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        known = self._client.get_experiment_by_name(title)
        experiment = self._client.create_experiment(title) if known is None else known.experiment_id
        own = str(place / name)
        quote = '"' if "'" in own else "'"
        wanted = f"tags.`{_TAG}` = {quote}{own}{quote}"
        found = self._client.search_runs([experiment], wanted, max_results=1) if resuming else []
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(experiment, run_name=name, tags={_TAG: own}).info.run_id
            params = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(config.model_dump(mode="json"))]
            for start in range(0, len(params), 100):
                self._client.log_batch(self._run, params=params[start : start + 100])
        return f"mlflow ui --backend-store-uri {where}"

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        """Log them."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, epoch) for name, value in values.items()]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + _AT_ONCE])

    def end_run(self, *, complete: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run, "FINISHED" if complete else "KILLED")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


TRACKER = OnMlflow
