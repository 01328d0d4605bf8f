"""Predictions written into a file, whole or in several goes."""

import csv
import json
import os

import pyarrow.parquet
import pytest
import tensorflow as tf

from keras_convmixer import files
from keras_convmixer.cli import main
from keras_convmixer.inference import prediction_file
from keras_convmixer.inference.prediction import predict
from keras_convmixer.inference.prediction_file import write_predictions
from keras_convmixer.progress import Progress


@pytest.fixture
def photos(digits, tmp_path):
    """Twelve held-out digits and two that cannot be read, the last with a name that is no text."""
    images = digits.held_out()
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.png").write_bytes(images.encoded(tf.constant(i, tf.int64)).numpy())
    (folder / "05, half.png").write_bytes(b"\x89PNG")
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write(b"no image")
    return folder


def stopped(monkeypatch, after, *arguments, **options):
    """Calls `write_predictions` and interrupts it after so many batches."""
    batches = []

    def update(self, count):
        batches.append(count)
        if len(batches) > after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", update)
        with pytest.raises(KeyboardInterrupt):
            write_predictions(*arguments, **options)


def test_csv_is_what_predict_gives(bundle, photos, tmp_path):
    assert write_predictions(tmp_path / "out.csv", bundle, photos, top=3, batch_size=4) == (14, 2)
    expected = predict(bundle, photos, top=3, batch_size=4).as_csv()
    assert (tmp_path / "out.csv").read_text(errors="surrogateescape") == expected
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "photos"]


def test_parquet_and_json_lines_say_the_same(bundle, photos, tmp_path):
    for suffix in ("parquet", "jsonl"):
        write_predictions(tmp_path / f"out.{suffix}", bundle, photos, top=2)
    found = predict(bundle, photos, top=2)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found.summary()
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    expected = found.records()[1:]
    assert [row["class"] for row in rows] == [row[1] for row in expected]
    assert [row["error"] for row in rows] == [row[3] for row in expected]
    assert [row["probability"] for row in rows] == pytest.approx([row[2] for row in expected])
    assert rows[0]["path"] == str(photos / "00.png")
    assert rows[-1]["path"].endswith("\\udcff.png")


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_stopped_it_goes_on_with_every_file_once(bundle, photos, tmp_path, monkeypatch, cut):
    out, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    stopped(monkeypatch, 2, out, bundle, photos, batch_size=4)
    assert not out.exists()
    os.truncate(part, part.stat().st_size - cut)
    asked = []
    predictions_of = prediction_file.predictions_of
    monkeypatch.setattr(
        prediction_file,
        "predictions_of",
        lambda bundle, found, *rest: asked.extend(found) or predictions_of(bundle, found, *rest),
    )
    assert write_predictions(out, bundle, photos, batch_size=4) == (14, 2)
    assert len(asked) == (6 if cut == 0 else 7)
    with open(out, errors="surrogateescape") as file:
        paths = list(dict.fromkeys(row["path"] for row in csv.DictReader(file)))
    assert paths == [str(file) for file in sorted(photos.iterdir())]
    assert not part.exists()


def test_what_was_begun_otherwise_is_not_gone_on_with(bundle, photos, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    stopped(monkeypatch, 1, out, bundle, photos)
    for words, other in (
        ({"top": 4}, "top"),
        ({"paths": [photos, photos / "00.png"]}, "paths"),
        ({"classes": [f"class {i}" for i in range(10)]}, "classes"),
    ):
        with pytest.raises(ValueError, match=f"out.csv.part was begun with other {other}: delete it"):
            write_predictions(out, bundle, **{"paths": photos, **words})
    monkeypatch.setattr(bundle.model, "predict_on_batch", lambda images: [[1.0] + 9 * [0.0]] * len(images))
    with pytest.raises(ValueError, match="begun with other model"):
        write_predictions(out, bundle, photos)


@pytest.mark.parametrize("content", ["", "{}\n", "[]\n", "no JSON\n", '{"paths": 3}\n'])
def test_a_damaged_part_is_named(bundle, photos, tmp_path, content):
    (tmp_path / "out.csv.part").write_text(content)
    if not content:  # killed before the first line was there
        assert write_predictions(tmp_path / "out.csv", bundle, photos).images == 14
        return
    with pytest.raises(ValueError, match="part is damaged: delete it to begin anew"):
        write_predictions(tmp_path / "out.csv", bundle, photos)


def test_the_command_writes_and_refuses_in_one_line(bundle, photos, tmp_path, capsys):
    out = tmp_path / "new" / "out.csv"
    assert main(["predict", str(bundle.path), str(photos), "--out", str(out)]) == 1
    assert capsys.readouterr().out == f"wrote {out}: 14 images, 2 could not be read\n"
    words = ["predict", str(bundle.path), str(photos / "00.png"), "--out", str(out)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"images": 1, "unreadable": 0}
    assert main([*words[:-1], str(tmp_path / "out.txt")]) == 1
    assert "out.txt: expected a name that ends in .csv, .parquet, .jsonl" in capsys.readouterr().err
    with files.locked(out.with_name(".out.csv.lock")):
        assert main(words) == 1
    err = capsys.readouterr().err
    assert "another process is writing it" in err
    assert err.count("\n") == 1
