"""Files that claim more than they hold, refused before Keras takes memory for what they claim."""

import json
import threading
import zipfile

import h5py
import keras
import pytest

import keras_convmixer
from keras_convmixer.weights.keras_file import building_at_most

SMALL = {"input_shape": (8, 8, 3), "num_classes": 3}


def model():
    return keras_convmixer.ConvMixer(8, 1, 3, 2, **SMALL)


@pytest.fixture
def path(tmp_path):
    model().save(tmp_path / "a.keras")
    return tmp_path / "a.keras"


def change(path, change_member=lambda name, content: content, method=zipfile.ZIP_STORED):
    """Writes a .keras file anew; None for a member's content leaves it out."""
    with zipfile.ZipFile(path) as file:
        members = {name: change_member(name, file.read(name)) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(name, content)


def claim(path, gigabytes):
    """Makes the first kernel of an HDF5 file one that claims many gigabytes and takes no room."""
    with h5py.File(path, "r+") as file:
        kernels = []
        file.visititems(lambda name, item: kernels.append(name) if getattr(item, "ndim", 0) == 4 else None)
        del file[kernels[0]]
        size = gigabytes * 2**28
        file.create_dataset(kernels[0], (size,), "float32", chunks=(2**16,), compression="gzip")


def refused(path):
    with pytest.raises(ValueError) as error:
        keras_convmixer.load(path, ["a", "b", "c"])
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_large_array_that_is_not_there(path, tmp_path):
    model().save_weights(tmp_path / "a.weights.h5")
    claim(tmp_path / "a.weights.h5", 1)
    with pytest.raises(ValueError, match=r"a\.weights\.h5: its weights, up to .*, would take 1,073,7.* bytes"):
        keras_convmixer.ConvMixer(8, 1, 3, 2, **SMALL, weights=tmp_path / "a.weights.h5")

    def claimed(name, content):
        if not name.endswith(".h5"):
            return content
        (tmp_path / "inner.h5").write_bytes(content)
        claim(tmp_path / "inner.h5", 1)
        return (tmp_path / "inner.h5").read_bytes()

    change(path, claimed)
    assert "would take 1,073,7" in refused(path)


@pytest.mark.parametrize("key, value", [("units", 30_000_000), ("kernel_size", [4001, 4001])])
def test_a_layer_larger_than_the_weights(key, value, path):
    def enlarged(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        for layer in config["config"]["layers"]:
            if key in layer["config"] and (key == "units" or "depthwise" in layer["config"]["name"]):
                layer["config"][key] = value
        return json.dumps(config)

    change(path, enlarged)
    assert "need more weights than it has" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_to_more_than_it_says(method, path):
    change(path, method=method)
    assert "by a method that Keras does not use" in refused(path)


def test_a_file_without_weights_or_with_others(path):
    change(path, lambda name, content: None if name.endswith(".h5") else content)
    assert "it has no model.weights.h5" in refused(path)


def test_what_keras_quotes_of_a_file_is_cut_short(path):
    def unknown(name, content):
        if name != "config.json":
            return content
        return json.dumps(json.loads(content) | {"class_name": "Unknown", "module": None, "long": "x" * 10_000})

    change(path, unknown)
    assert len(refused(path)) < 1000


def test_a_file_that_was_packed_anew_is_read(path):
    change(path, method=zipfile.ZIP_DEFLATED)
    assert keras_convmixer.load(path, ["a", "b", "c"]).classes == ("a", "b", "c")


def test_only_what_this_thread_builds_is_bounded():
    built = []
    own = keras.Layer.add_weight
    other = threading.Thread(target=lambda: built.append(keras.layers.Dense(200).build((None, 200))))
    with building_at_most(0):
        other.start()
        other.join()
        with pytest.raises(ValueError, match="more weights than it has"):
            keras.layers.Dense(200).build((None, 200))
    assert len(built) == 1
    assert keras.Layer.add_weight is own
