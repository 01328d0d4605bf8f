import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer import Preprocessing

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
        {"crop": 0},
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
