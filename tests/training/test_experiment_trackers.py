"""The callbacks of Weights & Biases and MLflow, as docs/training.md has them. One that is not there is skipped."""

import csv

import pytest

import keras_convmixer

pytestmark = pytest.mark.slow
FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


def history(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_weights_and_biases_has_the_figures_of_every_epoch(small_recipe, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.integration.keras import WandbMetricsLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    rows = []
    with wandb.init(project="convmixer", dir=tmp_path) as run:
        log = wandb.log
        monkeypatch.setattr(wandb, "log", lambda row: (rows.append(row), log(row)))
        keras_convmixer.train(small_recipe(), tmp_path / "run", callbacks=[WandbMetricsLogger()], verbose=0)
        last = dict(run.summary)
    assert [row["epoch/epoch"] for row in rows] == [0, 1]
    for row, expected in zip(rows, history(tmp_path / "run"), strict=True):
        for name in (*FIGURES, "learning_rate"):
            assert row[f"epoch/{name}"] == pytest.approx(float(expected[name]), rel=1e-6)
    assert last["epoch/val_accuracy"] == rows[-1]["epoch/val_accuracy"]


def test_mlflow_has_the_figures_of_every_epoch(small_recipe, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("mlflow.keras")
    from mlflow.keras import MlflowCallback

    monkeypatch.chdir(tmp_path)  # where MLflow keeps its files
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with mlflow.start_run() as run:
        keras_convmixer.train(small_recipe(), tmp_path / "run", callbacks=[MlflowCallback()], verbose=0)
    found = mlflow.MlflowClient()
    assert "optimizer_learning_rate" in found.get_run(run.info.run_id).data.params
    for name in FIGURES:
        values = [metric.value for metric in found.get_metric_history(run.info.run_id, name)]
        assert values == pytest.approx([float(row[name]) for row in history(tmp_path / "run")], rel=1e-6)
