import csv
import io
import json
import os
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_convmixer.bundles import Bundle
from keras_convmixer.inference.image_files import find_images
from keras_convmixer.inference.prediction import Prediction, Predictions, Predictor, predict
from keras_convmixer.model import ConvMixer
from keras_convmixer.preprocessing import Preprocessing


@pytest.fixture
def photos(digits, tmp_path):
    """0.png, 1.PNG and below/2.jpeg of held-out digits; broken.jpg and below/notes.txt, which are no images."""
    images = digits.held_out()
    contents = [images.encoded(tf.constant(i, tf.int64)).numpy() for i in range(3)]
    (tmp_path / "below").mkdir()
    (tmp_path / "0.png").write_bytes(contents[0])
    (tmp_path / "1.PNG").write_bytes(contents[1])
    (tmp_path / "below" / "2.jpeg").write_bytes(contents[2])
    (tmp_path / "below" / "notes.txt").write_text("no image")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    return tmp_path


def test_probabilities_best_first(bundle, photos, expected):
    (first,) = predict(bundle, photos / "0.png", top=3)
    assert first.error is None
    best = np.argsort(-expected[0])[:3]
    assert [name for name, _ in first.classes] == [str(i) for i in best]
    np.testing.assert_allclose([p for _, p in first.classes], expected[0][best], atol=1e-5)


def test_a_model_folder_and_batches_give_the_same(bundle, photos):
    whole = predict(bundle, [photos])
    for one, other in zip(whole, predict(bundle.path, [str(photos)], batch_size=1), strict=True):
        assert one.path == other.path
        assert one.error == other.error
        np.testing.assert_allclose([p for _, p in one.classes], [p for _, p in other.classes], atol=1e-6)


def test_a_predictor_of_batches_says_what_predict_says(bundle, photos):
    paths = [photos / "0.png", photos / "broken.jpg", photos / "1.PNG"]
    found = Predictor(bundle, top=3)({"bytes": [path.read_bytes() for path in paths], "path": [*map(str, paths)]})
    assert list(found) == ["path", "classes", "probabilities", "error"]
    for i, one in enumerate(predict(bundle, paths, top=3)):
        assert found["path"][i] == str(one.path)
        assert found["error"][i] == one.error
        assert found["classes"][i] == [name for name, _ in one.classes]
        assert found["probabilities"][i] == pytest.approx([probability for _, probability in one.classes], abs=1e-6)
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        Predictor(bundle, top=0)


def test_what_is_no_image_is_reported_and_the_rest_goes_on(bundle, photos):
    found = predict(bundle, [photos / "broken.jpg", photos / "below" / "notes.txt", photos / "0.png"])
    assert [bool(prediction.error) for prediction in found] == [True, True, False]
    assert [len(prediction.classes) for prediction in found] == [0, 0, 5]
    assert "not a JPEG" in found[1].error
    assert all("\n" not in prediction.error for prediction in found[:2])


def test_what_is_no_regular_file_is_an_error_of_its_own(bundle, photos):
    (photos / "device.jpg").symlink_to(os.devnull)
    (photos / "gone.jpg").symlink_to("nowhere")
    found = {prediction.path.name: prediction.error for prediction in predict(bundle, photos)}
    assert found["device.jpg"] == "not a regular file"
    assert found["gone.jpg"] == "No such file or directory"
    assert found["0.png"] is None


def test_top_is_at_most_the_number_of_classes(bundle, photos):
    (prediction,) = predict(bundle, [photos / "0.png"], top=50)
    assert len(prediction.classes) == 10
    assert sum(probability for _, probability in prediction.classes) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("arguments", [{"top": 0}, {"batch_size": 0}])
def test_bad_arguments(bundle, photos, arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        predict(bundle, [photos], **arguments)


def names(root, paths):
    return [file.path.relative_to(root).as_posix() for file in find_images(paths, None)]


def test_folders_are_searched_for_image_files(photos):
    (photos / ".hidden.png").write_bytes(b"")
    assert names(photos, [photos]) == ["0.png", "1.PNG", "below/2.jpeg", "broken.jpg"]


def test_patterns_and_no_file_twice(photos):
    paths = [photos / "*.png", photos / "**" / "*.jp*g", photos / "0.png", photos / "below"]
    assert names(photos, paths) == ["0.png", "below/2.jpeg", "broken.jpg"]


def test_a_file_whose_name_looks_like_a_pattern(photos):
    (photos / "0.png").rename(photos / "a[0].png")
    assert names(photos, [photos / "a[0].png"]) == ["a[0].png"]


@pytest.mark.parametrize("path", ["missing.png", "*.webp", "empty"])
def test_what_is_not_there_is_named_and_does_not_stop_the_others(bundle, photos, path):
    (photos / "empty").mkdir()
    missing, first = predict(bundle, [photos / path, photos / "0.png"], top=1)
    assert missing.path == photos / path
    assert missing.error.startswith("no ")
    assert first.error is None
    with pytest.raises(FileNotFoundError) as error:
        predict(bundle, [photos / path, photos / "nor.this"])
    assert str(photos / path) in str(error.value)


def test_table_json_and_csv(bundle, photos):
    predictions = predict(bundle, [photos / "0.png", photos / "broken.jpg"], top=2)
    (best, probability), _ = predictions[0].classes
    lines = predictions.as_table().splitlines()
    assert lines[0] == str(photos / "0.png")
    assert lines[1].split() == [f"{probability:.2%}", best]
    assert lines[3:] == [str(photos / "broken.jpg"), f"  error: {predictions[1].error}"]
    first, second = json.loads(predictions.as_json())
    assert first["path"] == str(photos / "0.png")
    assert first["classes"][0] == {"class": best, "probability": probability}
    assert second == {"path": str(photos / "broken.jpg"), "error": predictions[1].error}
    header, row, _, last = csv.reader(io.StringIO(predictions.as_csv()))
    assert row == [str(photos / "0.png"), best, str(probability), ""]
    assert dict(zip(header, last)) == {
        "path": str(photos / "broken.jpg"),
        "class": "",
        "probability": "",
        "error": predictions[1].error,
    }


def test_names_do_not_steer_the_terminal_that_shows_them():
    name = "\x1b[31ma\nb\x9b\u2028\udcff.png"
    predictions = Predictions([Prediction(Path(name), (("Straße 犬　猫", 0.5),))])
    first, second = predictions.as_table().split("\n")
    assert first == r"\x1b[31ma\nb\x9b\u2028\udcff.png"
    assert second == "   50.00%  Straße 犬　猫"
    text = predictions.as_json()
    assert "犬　猫" in text
    assert not set(text) & set("\x1b\x9b\u2028\udcff")
    assert json.loads(text)[0]["path"] == name


def test_a_process_keeps_its_stderr(bundle, photos):
    """The package is a guest: it moves none of the process's file descriptors."""
    with mock.patch("os.dup2", wraps=os.dup2) as moved:
        assert len(predict(bundle, [photos / "0.png", photos / "broken.jpg"])) == 2
    moved.assert_not_called()


def test_wordnet_ids_are_shown_in_words(photos):
    keras.utils.set_random_seed(0)
    model = ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=2, classifier_activation=None)
    bundle = Bundle(model, Preprocessing((8, 8), 1.0), ("n01440764", "n01443537"))
    (prediction,) = predict(bundle, [photos / "0.png"])
    shown = {name for name, _ in prediction.classes}
    assert shown == {"tench, Tinca tinca", "goldfish, Carassius auratus"}
