import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keras_convmixer import Preprocessing
from keras_convmixer.errors import UserError

sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))
channels = st.tuples(*[st.floats(0.01, 1)] * 3)


@given(sizes, st.floats(0.01, 1), st.sampled_from(["nearest", "bilinear", "bicubic"]), channels, channels)
def test_json_round_trip(size, crop, interpolation, mean, std):
    ours = Preprocessing(size, crop, interpolation, mean, std)
    assert Preprocessing.from_json(ours.to_json()) == ours


def test_resize_size_is_timms():
    assert Preprocessing((224, 224), 0.96).resize_size == (233, 233)
    assert Preprocessing(224).input_size == (224, 224)


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": (224,)},
        {"input_size": (0, 224)},
        {"input_size": (True, 224)},
        {"input_size": (20_000, 224)},
        {"crop": float("nan")},
        {"mean": (0, 0, float("inf"))},
        {"crop": 0},
        {"crop": True},
        {"crop": 1.1},
        {"interpolation": "lanczos"},
        {"std": (0, 1, 1)},
        {"mean": (1, 2)},
    ],
)
def test_refuses_what_is_out_of_range(change):
    with pytest.raises(ValueError):
        Preprocessing(**change)


@pytest.mark.parametrize("text", ["", "[]", '{"input_size": 3, "crop_pct": 1}', '{"crop": "wide"}', "nonsense"])
def test_refuses_foreign_files(tmp_path, text):
    path = tmp_path / "preprocessing.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a preprocessing file"):
        Preprocessing.read(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("input_size", "crop", "interpolation", "mean", "std")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values) | json_values)
@example({"input_size": True})
@example({"input_size": [10**400, 8]})
@example({"input_size": [20_000, 20_000]})
@example({"crop": True})
@example({"crop": 5e-324})
@example({"mean": [10**400, 0, 0]})
@example({"mean": [float("nan"), 0, 0]})
def test_a_file_is_read_or_refused_in_one_line(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("model") / "preprocessing.json"
    path.write_text(json.dumps(values))
    try:
        found = Preprocessing.read(path)
    except UserError as error:
        said = str(error)
    else:
        assert max(found.input_size) <= 16_384
        assert max(found.resize_size) < 2**31
        assert Preprocessing.from_json(found.to_json()) == found
        return
    assert said.startswith(f"{path} is not a preprocessing file: ")
    assert len(said.splitlines()) == 1
    assert len(said) < 1000


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"input_size": ' + b"9" * 5000 + b"}", b"{}garbage", b"\xff\xfe{}"]
)
def test_absurd_files_are_refused(tmp_path, text):
    path = tmp_path / "preprocessing.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match="is not a preprocessing file"):
        Preprocessing.read(path)
