"""What loading checks and what it adapts: strictness, heads, channels, patch and kernel sizes."""

import contextlib
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_writer import contents, write_zip

from keras_convmixer import Preprocessing, bundles, parts
from keras_convmixer.model import ConvMixer
from keras_convmixer.variants import VARIANTS, convert_checkpoint, create_model, weight_sources
from keras_convmixer.weights import load
from keras_convmixer.weights.load import load_weights
from keras_convmixer.weights.state_dict import architecture, load_state, save_torch, state_dict
from keras_convmixer.weights.stored_array import CheckpointError
from keras_convmixer.weights.undrawn import undrawn


def small(**arguments):
    keras.utils.set_random_seed(0)
    arguments = {"kernel_size": 5, "patch_size": 4, "num_classes": 6, "input_shape": (16, 16, 3)} | arguments
    return ConvMixer(8, 2, **arguments)


def predict(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")


def as_authors(state, depth=2):
    """timm's names as the authors'."""

    def rename(name):
        first, _, rest = name.partition(".")
        if first == "stem":
            return rest
        if first == "head":
            return f"{depth + 5}.{rest}"
        block, _, rest = rest.partition(".")
        return f"{int(block) + 3}.{rest}"

    return {rename(name): array for name, array in state.items()}


@pytest.mark.parametrize("names", [dict, as_authors])
def test_the_architecture_is_read_off_the_weights(names):
    found = architecture(names(state_dict(small(input_shape=(16, 16, 2)))))
    assert found == {
        "dim": 8,
        "depth": 2,
        "kernel_size": 5,
        "patch_size": 4,
        "channels": 2,
        "num_classes": 6,
    }
    assert architecture(names(state_dict(small(include_top=False))))["num_classes"] is None


@pytest.mark.parametrize("names", [dict, as_authors])
def test_everything_that_does_not_fit_is_named_at_once(names):
    model = small()
    state = names(state_dict(model))
    missing = next(name for name in state if name.endswith("running_mean"))
    reshaped = next(name for name in state if name.endswith("1.bias"))
    integer = next(name for name in state if name.endswith("running_var"))
    del state[missing]
    state |= {"extra.weight": np.zeros(3), reshaped: np.zeros(9), integer: np.zeros(8, "int64")}
    before = model.get_weights()
    with pytest.raises(CheckpointError) as refusal:
        load_state(model, state)
    message = str(refusal.value)
    assert f"missing: {missing};" in message
    assert "unexpected: extra.weight;" in message
    assert f"{reshaped} (9,) float64 instead of (8,)" in message
    assert f"{integer} (8,) int64 instead of (8,) float" in message
    assert "\n" not in message
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"kernel_size": 7}, "kernel_size 5 instead of 7"),
        ({"patch_size": 2}, "patch_size 4 instead of 2"),
    ],
)
def test_another_architecture_is_said_and_not_resampled_unasked(tmp_path, arguments, said):
    save_torch(small(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=said):
        small(**arguments, weights=tmp_path / "a.safetensors")


def test_another_depth_is_said(tmp_path):
    save_torch(small(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="depth 2 instead of 3") as refusal:
        ConvMixer(8, 3, 5, 4, num_classes=6, weights=tmp_path / "a.safetensors")
    assert "missing: blocks.2.0.fn.0.weight" in str(refusal.value)


def test_another_networks_checkpoint_is_refused(tmp_path):
    save_file({"conv1.weight": np.zeros((64, 3, 7, 7), "float32")}, tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match="does not hold a ConvMixer"):
        convert_checkpoint(tmp_path / "resnet.safetensors", activation="gelu")
    with pytest.raises(ValueError, match=r"unexpected: conv1\.weight"):
        small(weights=tmp_path / "resnet.safetensors")


@pytest.mark.parametrize("address", ["https://example.org/a.safetensors", "http://localhost/a.safetensors"])
def test_an_address_is_downloaded_and_checked_as_weights(tmp_path, monkeypatch, address):
    def download(url, check):
        (tmp_path / "a.safetensors").write_text("<html>")
        with pytest.raises(ValueError, match="neither a zip file"):
            check(tmp_path / "a.safetensors")
        return url

    monkeypatch.setattr(load, "download", download)
    assert load.fetch(address) == address


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        small(weights=tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_broken_keras_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match=name):
        small(weights=tmp_path / name)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_the_models(tmp_path, dtype):
    model = small()
    state = {name: array.astype(dtype) for name, array in state_dict(model).items() if array.dtype == "float32"}
    content, storages = contents(state)
    again = small(weights=write_zip(tmp_path / "a.pth", content, storages))
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first.astype(dtype).astype("float32"), second)


def test_another_number_of_classes_starts_a_new_head_and_says_so(tmp_path):
    model = small()
    save_torch(model, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match=r"has 6 classes, the model's 4.*new head"):
        tuned = small(num_classes=4, weights=tmp_path / "a.safetensors")
    assert tuned.output_shape == (None, 4)
    for first, second in zip(model.get_weights()[:-2], tuned.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(first, second)
    assert np.std(tuned.get_layer("head").get_weights()[0]) > 0


def test_weights_that_fit_give_no_warning(tmp_path):
    save_torch(small(), tmp_path / "a.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(weights=tmp_path / "a.safetensors")
        small(include_top=False, weights=tmp_path / "a.safetensors")


def test_a_head_is_missing_from_a_headless_checkpoint(tmp_path):
    save_torch(small(include_top=False), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: head.weight, head.bias$"):
        small(weights=tmp_path / "a.safetensors")
    assert convert_checkpoint(tmp_path / "a.safetensors", activation="gelu").output_shape[1:] == (56, 56, 8)


@pytest.mark.parametrize(
    "channels, expected",
    [
        (1, lambda kernel: kernel.sum(2, keepdims=True)),
        (2, lambda kernel: kernel[:, :, [0, 1]] * 3 / 2),
        (4, lambda kernel: kernel[:, :, [0, 1, 2, 0]] * 3 / 4),
        (7, lambda kernel: kernel[:, :, [0, 1, 2, 0, 1, 2, 0]] * 3 / 7),
    ],
)
def test_other_channels_adapt_the_patch_embedding_as_timm_does(tmp_path, channels, expected):
    model = small()
    save_torch(model, tmp_path / "a.safetensors")
    adapted = small(input_shape=(16, 16, channels), weights=tmp_path / "a.safetensors")
    kernel, found = (m.get_layer("patch_embedding").get_weights()[0] for m in (model, adapted))
    np.testing.assert_allclose(found, expected(kernel), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [6, 7, 8, 9])
@pytest.mark.parametrize("trained", [4, 5])
def test_a_padded_kernel_computes_the_same_function(tmp_path, images, trained, size):
    model = small(kernel_size=trained)
    larger = small(kernel_size=size)
    load_state(larger, state_dict(model), may_resample=["kernel_size"])
    np.testing.assert_allclose(predict(larger, images), predict(model, images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trained, size, kept", [(5, 3, slice(1, 4)), (6, 3, slice(1, 4)), (5, 2, slice(2, 4))])
def test_a_kernel_is_cropped_about_its_centre(trained, size, kept):
    model, smaller = small(kernel_size=trained), small(kernel_size=size)
    load_state(smaller, state_dict(model), may_resample=["kernel_size"])
    kernel, found = (m.get_layer("block_1_depthwise").get_weights()[0] for m in (model, smaller))
    np.testing.assert_array_equal(found, kernel[kept, kept])


def enlarged(images, old, new):
    """Bilinear enlargement of each patch by itself, pixel by pixel as its definition says."""
    patches = images.reshape(len(images), 16 // old, old, 16 // old, old, 3)
    out = np.zeros((len(images), 16 // old, new, 16 // old, new, 3))
    for y in range(new):
        for x in range(new):
            at = [min(max((c + 0.5) * old / new - 0.5, 0), old - 1) for c in (y, x)]
            (top, left), (dy, dx) = [int(a) for a in at], [a % 1 for a in at]
            bottom, right = min(top + 1, old - 1), min(left + 1, old - 1)
            out[:, :, y, :, x] = (
                (1 - dy) * (1 - dx) * patches[:, :, top, :, left]
                + (1 - dy) * dx * patches[:, :, top, :, right]
                + dy * (1 - dx) * patches[:, :, bottom, :, left]
                + dy * dx * patches[:, :, bottom, :, right]
            )
    return out.reshape(len(images), 16 // old * new, 16 // old * new, 3).astype("float32")


@pytest.mark.parametrize("size", [5, 7, 8])
def test_larger_patches_embed_an_enlarged_image_alike(images, size):
    model = small()
    side = 16 // 4 * size
    larger = small(patch_size=size, input_shape=(side, side, 3))
    load_state(larger, state_dict(model), may_resample=["patch_size"])
    np.testing.assert_allclose(predict(larger, enlarged(images, 4, size)), predict(model, images), rtol=1e-4)


def test_smaller_patches_keep_the_answer_to_a_flat_image():
    model = small()
    smaller = small(patch_size=3, input_shape=(12, 12, 3))
    load_state(smaller, state_dict(model), may_resample=["patch_size"])
    flat = [np.full((1, side, side, 3), 90.0, "float32") for side in (16, 12)]
    np.testing.assert_allclose(predict(smaller, flat[1]), predict(model, flat[0]), rtol=1e-3)


def test_create_model_resamples_what_it_was_asked_for(tmp_path):
    save_torch(create_model("convmixer_tiny"), tmp_path / "tiny.safetensors")
    model = create_model("convmixer_tiny", patch_size=8, kernel_size=5, weights=tmp_path / "tiny.safetensors")
    assert model.get_layer("patch_embedding").kernel_size == (8, 8)
    save_torch(model, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="kernel_size 5 instead of 3, patch_size 8 instead of 4"):
        create_model("convmixer_tiny", weights=tmp_path / "other.safetensors")


def test_a_known_variant_gives_the_activation_and_normalisation_of_its_checkpoint(tmp_path):
    model = create_model("convmixer_tiny", activation="gelu")
    save_torch(model, tmp_path / "tiny.safetensors")
    converted = convert_checkpoint(tmp_path / "tiny.safetensors")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(predict(converted, images), predict(model, images), rtol=1e-6)


def test_the_activation_of_an_unknown_architecture_must_be_given(tmp_path):
    save_torch(small(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r'does not show its activation.*activation="gelu"'):
        convert_checkpoint(tmp_path / "a.safetensors")


def test_convert_checkpoint_takes_the_builders_arguments(tmp_path):
    save_torch(small(), tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="new head"):
        model = convert_checkpoint(
            tmp_path / "a.safetensors", activation="relu", num_classes=3, patch_size=2, input_shape=(8, 8, 1)
        )
    assert model.input_shape == (None, 8, 8, 1)
    assert model.output_shape == (None, 3)
    assert model.get_layer("block_0_depthwise_activation").activation is keras.activations.relu


def test_only_a_convmixer_is_written_in_timms_layout(tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    with pytest.raises(ValueError, match=r"is not a ConvMixer.*dense"):
        save_torch(other, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_what_is_written_is_complete(tmp_path):
    model = small()
    save_torch(model, tmp_path / "a.safetensors")
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == state_dict(model).keys()
    assert written["stem.2.num_batches_tracked"].dtype == "int64"
    assert written["blocks.1.0.fn.0.weight"].shape == (8, 1, 5, 5)


def test_imagenet_weights_are_only_those_published():
    published = [name for name, variant in VARIANTS.items() if variant.release]
    assert published == ["convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14"]
    for name in published:
        assert all(source.startswith("https://") for source in weight_sources(name))
    with pytest.raises(
        ValueError, match="no weights are published for convmixer_tiny; they are for convmixer_1536"
    ):
        create_model("convmixer_tiny", weights="imagenet")


@pytest.mark.parametrize("name", ["a.safetensors", "a.keras", "a.weights.h5"])
def test_ema_is_refused_where_there_is_none(tmp_path, name):
    path = written(small(), tmp_path / name)
    with pytest.raises(CheckpointError, match="none averaged"):
        load_weights(small(), path, ema=True)


MEASURE = """
import resource, sys, time
from keras_convmixer.variants import convert_checkpoint, get_variant
from keras_convmixer.weights import load
import keras
keras.ops.zeros(1)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

start, before = time.perf_counter(), peak()
model = convert_checkpoint(sys.argv[1])
print(time.perf_counter() - start, peak() - before, sum(weight.size for weight in model.get_weights()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full.pth.tar", "full.safetensors"])
def test_a_checkpoint_of_52_million_parameters_takes_10_seconds_and_little_memory(tmp_path, name):
    path = tmp_path / name
    shapes = {name: array.shape for name, array in state_dict(create_model("convmixer_1536_20")).items()}
    state = {name: np.ones(shape, "float32") for name, shape in shapes.items()}
    if path.suffix == ".tar":
        content, storages = contents(state)
        write_zip(path, {"epoch": 149, "state_dict": content}, storages)
    else:
        save_file(state, path)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    seconds, memory, parameters = map(float, done.stdout.split()[-3:])
    assert parameters > 51e6
    assert seconds < 10
    assert memory < 2.5 * path.stat().st_size


def test_a_loaded_model_keeps_its_initial_distributions(tmp_path):
    save_torch(small(), tmp_path / "a.safetensors")
    arguments = {"activation": "gelu", "input_shape": (16, 16, 3)}
    loaded = convert_checkpoint(tmp_path / "a.safetensors", **arguments)
    assert loaded.get_config() == small(mean=None).get_config()
    fresh = keras.models.clone_model(loaded)
    for layer in ("block_0_depthwise", "block_1_pointwise"):
        assert np.std(fresh.get_layer(layer).get_weights()[0]) > 0


@pytest.fixture
def drawn(monkeypatch):
    """The shapes of the kernels that are drawn at random."""
    shapes, draw = [], keras.initializers.VarianceScaling.__call__

    def recorded(initializer, shape, *arguments, **options):
        shapes.append(tuple(shape))
        return draw(initializer, shape, *arguments, **options)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", recorded)
    return shapes


def test_nothing_is_drawn_that_is_loaded_over(tmp_path, drawn):
    path = tmp_path / "tiny.safetensors"
    save_torch(create_model("convmixer_tiny"), path)
    drawn.clear()
    convert_checkpoint(path)
    create_model("convmixer_tiny", weights=path)
    assert drawn == []
    with pytest.warns(UserWarning, match="new head"):
        create_model("convmixer_tiny", num_classes=3, weights=path)
    assert drawn == [(32, 3)]
    create_model("convmixer_tiny")
    assert len(drawn) > 4


def test_another_thread_draws_meanwhile():
    with undrawn(), ThreadPoolExecutor(1) as pool:
        theirs, ours = pool.submit(small).result(), small()
    assert np.std(theirs.get_layer("block_0_depthwise").get_weights()[0]) > 0
    assert np.std(ours.get_layer("block_0_depthwise").get_weights()[0]) == 0


def test_a_model_folder_is_a_source_too(tmp_path):
    model = small(classifier_activation=None)
    bundles.save(bundles.Bundle(model, Preprocessing((16, 16)), tuple("abcdef")), tmp_path / "run")
    for first, second in zip(model.get_weights(), small(weights=tmp_path / "run").get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        small(weights=tmp_path)


def test_the_same_number_of_other_classes_starts_a_new_head_where_asked(tmp_path):
    model, other = small(), ConvMixer(8, 2, 5, 4, num_classes=6, input_shape=(16, 16, 3))
    save_torch(model, tmp_path / "a.safetensors")
    other.get_layer("head").set_weights([np.ones((8, 6)), np.ones(6)])
    with pytest.warns(UserWarning, match="other classes: the model starts with a new head"):
        load_weights(other, tmp_path / "a.safetensors", new_head=True)
    kernel, found = (m.get_layer("head").get_weights()[0] for m in (model, other))
    assert np.std(found) > 0
    assert not np.array_equal(found, kernel)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.keras", "a.weights.h5"])
def test_weights_that_are_not_finite_are_refused(tmp_path, name, bad):
    model, path = small(), tmp_path / name
    kernel, bias = model.get_layer("block_1_pointwise").get_weights()
    kernel[0, 0, 3, 4] = bad
    model.get_layer("block_1_pointwise").set_weights([kernel, bias])
    other = small(activation="relu")
    with unchanged(other), pytest.raises(CheckpointError) as refusal:
        load_weights(other, written(model, path))
    assert f"{path}: kernel of the layer block_1_pointwise is not finite" in str(refusal.value)


def written(model, path):
    if path.suffix == ".safetensors":
        save_torch(model, path)
    elif path.suffix == ".pth":
        write_zip(path, *contents(state_dict(model)))
    else:
        model.save(path) if path.suffix == ".keras" else model.save_weights(path)
    return path


@contextlib.contextmanager
def unchanged(model):
    model.set_weights([np.full_like(weight, 0.5) for weight in model.get_weights()])
    yield
    assert all(np.all(weight == 0.5) for weight in model.get_weights())


@pytest.mark.parametrize("name", ["a.pth", "a.weights.h5"])
def test_damage_that_shows_late_leaves_the_model_unchanged(tmp_path, name):
    model, path = small(), tmp_path / name
    # Of the last that is read.
    bias = model.get_layer("head").get_weights()[1]
    if path.suffix == ".h5":
        written(model, path)
        with h5py.File(path, "r+") as file:
            del file["layers/dense/vars/1"]
            file["layers/dense/vars"].create_dataset("1", data=bias, chunks=(6,), fletcher32=True)
    else:
        written(model, path)
    content = path.read_bytes()
    at = content.rindex(bias.tobytes())
    path.write_bytes(content[:at] + bytes(4) + content[at + 4 :])
    other = small()
    with unchanged(other), pytest.raises(CheckpointError, match=name) as refusal:
        load_weights(other, path)
    assert "\n" not in str(refusal.value)


def test_numbers_too_large_for_the_model_are_refused(tmp_path):
    state = {name: array.astype("float64") for name, array in state_dict(small()).items()}
    state["blocks.1.1.bias"][3] = 1e300
    write_zip(tmp_path / "a.pth", *contents(state))
    with pytest.raises(CheckpointError, match="bias of the layer block_1_pointwise is not finite"):
        small(weights=tmp_path / "a.pth")


def test_weights_that_keras_saved_are_those_that_are_loaded(tmp_path):
    model = small(dropout=0.1, stochastic_depth=0.1)
    model.compile("adam", "sparse_categorical_crossentropy")
    # Saved beside the weights.
    model.optimizer.build(model.trainable_variables)
    path = written(model, tmp_path / "a.weights.h5")
    again = small(weights=path)
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert convert_checkpoint(path, activation="gelu").output_shape == (None, 6)


def test_keras_weights_of_another_model_are_refused_by_name(tmp_path):
    path = written(ConvMixer(8, 3, 5, 4, num_classes=6, input_shape=(16, 16, 3)), tmp_path / "a.weights.h5")
    model = small()
    with unchanged(model), pytest.raises(CheckpointError, match=r"depth 3 instead of 2; unexpected: blocks\.2\.0"):
        load_weights(model, path)
    base = small(include_top=False, pooling="avg")
    own = keras.Model(base.input, keras.layers.Dense(6, name="scores")(base.output))
    with pytest.raises(CheckpointError, match=r"missing: head\.weight.*; unexpected: scores\.0, scores\.1$"):
        small(weights=written(own, tmp_path / "b.weights.h5"))


def test_keras_weights_are_adapted_as_others_are(tmp_path):
    model = small()
    path = written(model, tmp_path / "a.weights.h5")
    with pytest.warns(UserWarning, match=r"has 6 classes, the model's 4.*new head"):
        assert small(num_classes=4, weights=path).output_shape == (None, 4)
    with pytest.warns(UserWarning, match="other classes: the model starts with a new head"):
        load_weights(small(), path, new_head=True)
    larger = small(kernel_size=7)
    load_weights(larger, path, may_resample=["kernel_size"])
    kernel, found = (m.get_layer("block_0_depthwise").get_weights()[0] for m in (model, larger))
    np.testing.assert_array_equal(found[1:-1, 1:-1], kernel)
    small(include_top=False, weights=path)


def test_keras_weights_in_another_file_are_refused(tmp_path):
    path = written(small(), tmp_path / "a.weights.h5")
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        (tmp_path / "secret").write_bytes(bytes(4 * 4 * 4 * 3 * 8))
        external = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file["layers/conv2d/vars"].create_dataset("0", (4, 4, 3, 8), "float32", external=external)
    with pytest.raises(CheckpointError, match=r"a\.weights\.h5.*has numbers in another file"):
        small(weights=path)


OWN = {"activation": "relu", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


TINY, OTHER = (32, 2, 3, 4), (8, 2, 5, 2)


@pytest.mark.parametrize(
    "sizes, arguments",
    [
        (TINY, {"num_classes": 7, "classifier_activation": None, "dropout": 0.1, "stochastic_depth": 0.2}),
        (OTHER, {"include_top": False, "pooling": "avg"}),
        (OTHER, {"include_preprocessing": False}),
        (TINY, {"mean": 0.5, "std": 0.2, "input_shape": (24, 20, 1)}),
        (TINY, {"input_shape": (None, None, 3)}),
    ],
    ids=str,
)
def test_a_keras_file_is_converted_as_it_is(tmp_path, sizes, arguments):
    model = ConvMixer(*sizes, **OWN | {"input_shape": (24, 20, 3)} | arguments)
    again = convert_checkpoint(written(model, tmp_path / "a.keras"))
    found, expected = (m.get_config() for m in (again, model))
    for layer in found["layers"] + expected["layers"]:
        if layer["class_name"] == "Rescaling":
            layer["config"] |= {name: np.float32(layer["config"][name]).tolist() for name in ("scale", "offset")}
    assert found == expected
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_arguments_win_over_what_a_keras_file_states(tmp_path):
    path = written(ConvMixer(32, 2, 3, 4, **OWN, input_shape=(24, 20, 3), num_classes=3), tmp_path / "a.keras")
    with pytest.warns(UserWarning, match="go into one with activation gelu, mean "):
        model = convert_checkpoint(path, image_size=(16, 12), activation="gelu", mean=0.1)
    assert model.input_shape == (None, 16, 12, 3)
    found = parts.architecture(model)
    assert found["activation"] == "gelu"
    np.testing.assert_allclose(found["mean"] + found["std"], [0.1] * 3 + OWN["std"])
    tensor = keras.Input((8, 8, 3))
    assert convert_checkpoint(path, input_tensor=tensor).input_shape == (None, 8, 8, 3)


def test_weights_of_a_keras_file_for_another_activation_or_normalisation_are_said(tmp_path):
    path = written(ConvMixer(32, 2, 3, 4, **OWN, input_shape=(32, 32, 3), num_classes=10), tmp_path / "a.keras")
    theirs = "activation relu, mean [0.5, 0.4, 0.3], std [0.2, 0.3, 0.4]"
    ours = "activation gelu, mean [0.4914, 0.4822, 0.4465], std [0.2471, 0.2435, 0.2616]"
    said = f"the weights of {path} are of a model with {theirs}; they go into one with {ours}"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        create_model("convmixer_tiny", weights=path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        create_model("convmixer_tiny", weights=path, **OWN)
        create_model("convmixer_tiny", weights=path, activation="relu", include_preprocessing=False)
        create_model("convmixer_tiny", weights=path, activation="relu", input_shape=(32, 32, 1))
        create_model("convmixer_256_8_ks5_p2", weights="cifar10")


def test_weights_are_loaded_behind_layers_of_ones_own():
    image = keras.Input((40, 40, 3))
    resized = keras.layers.Resizing(32, 32)(image)
    model = create_model("convmixer_256_8_ks5_p2", weights="cifar10", input_tensor=resized)
    plain = create_model("convmixer_256_8_ks5_p2", weights="cifar10")
    assert model.input is image
    for first, second in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    images = np.random.default_rng(0).uniform(0, 255, (2, 40, 40, 3)).astype("float32")
    resized = keras.ops.image.resize(images, (32, 32))
    np.testing.assert_allclose(predict(model, images), predict(plain, resized), rtol=1e-4, atol=1e-6)
