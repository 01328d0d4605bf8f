"""What a training says of itself at the end of an epoch."""

import types

import pytest

from keras_convmixer.training.progress_line import ProgressLine


@pytest.mark.parametrize(
    "work, epoch, left",
    [([1, 1, 1], 0, "1 min, about 2 min left"), ([1, 1, 4], 0, "1 min, about 5 min left"), ([1, 4], 1, "1 min")],
)
def test_the_time_left_is_that_of_the_work_left(work, epoch, left, capsys):
    line = ProgressLine(types.SimpleNamespace(), work, bar=False)
    line.set_params({"steps": 0})
    line.on_epoch_begin(epoch)
    line.on_epoch_end(epoch, {"loss": 1, "accuracy": 0.5, "val_loss": 1, "val_accuracy": 0.5, "seconds": 60})
    assert capsys.readouterr().err.rstrip().endswith(f"; {left}")
