"""PyTorch's files, sound, unusual, broken and hostile."""

import io
import os
import random
import tracemalloc
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_writer import Call, Global, contents, tensor, write_legacy, write_zip

from keras_convmixer.weights.load import open_state
from keras_convmixer.weights.pickled import unpickle
from keras_convmixer.weights.stored_array import CheckpointError


def read_state(path, ema=False):
    with open_state(path, ema=ema) as (state, _):
        return {name: np.asarray(array) for name, array in state.items()}


VALUES = np.array([[0.5, -2.0, 3.25], [1e-3, 7.0, -0.125]])


DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("legacy", [False, True])
def test_every_dtype_in_both_formats(tmp_path, dtype, legacy):
    array = (np.abs(VALUES) if dtype == "uint8" else VALUES).astype(dtype)
    content, storages = contents({"a": array}, legacy)
    path = tmp_path / "a.pth"
    write_legacy(path, content, storages, array.itemsize) if legacy else write_zip(path, content, storages)
    (found,) = read_state(path).values()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_tensors_may_share_a_storage_and_be_strided(tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    content = {
        "rows": tensor("0", "float32", 12, (3, 4), (4, 1)),
        "columns": tensor("0", "float32", 12, (4, 3), (1, 4)),
        "inner": tensor("0", "float32", 12, (2, 2), (4, 1), offset=5),
        "repeated": tensor("0", "float32", 12, (5,), (0,), offset=11),
        "scalar": tensor("0", "float32", 12, (), (), offset=3),
        "empty": tensor("0", "float32", 12, (0, 4), (4, 1)),
    }
    found = read_state(write_zip(tmp_path / "a.pth", content, {"0": numbers.tobytes()}))
    rows = numbers.reshape(3, 4)
    expected = {"rows": rows, "columns": rows.T, "inner": rows[1:, 1:3], "repeated": np.full(5, 11), "scalar": 3}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert found["empty"].shape == (0, 4)


@pytest.mark.parametrize("place", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_where_trainers_put_the_weights(tmp_path, place, prefix):
    tensors, storages = contents({f"{prefix}stem.0.weight": VALUES})
    content = {place: tensors, "epoch": 3, "best": None, "names": ["a", "b"]} if place else tensors
    found = read_state(write_zip(tmp_path / "a.pth.tar", content, storages))
    np.testing.assert_array_equal(found["stem.0.weight"], VALUES)


def test_averaged_weights_are_read_where_asked_for(tmp_path):
    tensors, storages = contents({"a": VALUES, "b": VALUES + 1})
    path = tmp_path / "a.pth"
    write_zip(path, {"state_dict": {"w": tensors["a"]}, "state_dict_ema": {"w": tensors["b"]}}, storages)
    np.testing.assert_array_equal(read_state(path)["w"], VALUES)
    np.testing.assert_array_equal(read_state(path, ema=True)["w"], VALUES + 1)
    write_zip(path, {"state_dict": {"w": tensors["a"]}}, storages)
    with pytest.raises(CheckpointError, match="no averaged weights"):
        read_state(path, ema=True)


def test_what_trainers_keep_beside_the_weights_is_read_over(tmp_path):
    tensors, storages = contents({"w": VALUES})
    options = Call(Global("argparse", "Namespace"), ())
    score = Call(Global("numpy.core.multiarray", "scalar"), (Call(Global("numpy", "dtype"), ("f8",)), "bytes"))
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (tensors["w"], True, None))
    content = {"args": options, "best": score, "state_dict": {"w": parameter}}
    np.testing.assert_array_equal(read_state(write_zip(tmp_path / "a.pth", content, storages))["w"], VALUES)


def test_a_hostile_checkpoint_is_refused_by_name_and_runs_nothing(oracles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"posix\.system") as refusal:
        read_state(oracles / "weights/hostile.pth.tar")
    assert "\n" not in str(refusal.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.nn.modules.container", "Sequential"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.storage", "_load_from_bytes"),
    ],
)
def test_only_exact_names_are_allowed(tmp_path, module, name):
    tensors, storages = contents({"w": VALUES})
    path = write_zip(tmp_path / "a.pth", {"state_dict": tensors, "x": Call(Global(module, name), ("x",))}, storages)
    with pytest.raises(CheckpointError, match=f"asks for {module}.{name}"):
        read_state(path)


def huge_safetensors_header():
    return (2**62).to_bytes(8, "little") + b'{"a":' + b" " * 1000


def overlapping_entries(path):
    """A thousand storages that all claim the same megabyte."""
    size = 2**18
    content = {str(i): tensor(str(i), "float32", size, (size,), (1,)) for i in range(1000)}
    write_zip(path, content, {"0": bytes(4 * size)})
    with zipfile.ZipFile(path, "a") as file:
        first = file.getinfo("archive/data/0")
        for i in range(1, 1000):
            twin = zipfile.ZipInfo(f"archive/data/{i}")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            file.filelist.append(twin)
        file._didModify = True


def in_zip(content, storages=None, **options):
    return lambda path: write_zip(path, content, storages or {}, **options)


def raw(data):
    return lambda path: path.write_bytes(data)


ONE = {"0": bytes(4)}
BROKEN = {
    "empty": raw(b""),
    "one byte": raw(b"P"),
    "text": raw(b"<!DOCTYPE html><html>" * 50),
    "zeros": raw(bytes(1000)),
    "zip magic only": raw(b"PK\x03\x04"),
    "legacy magic only": raw(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
    "huge safetensors header": raw(huge_safetensors_header()),
    "another zip": in_zip({}, pickle=b"", extra={"../data.pkl": b""}),
    "empty pickle": in_zip({}, pickle=b""),
    "a pickle without an end": in_zip({}, pickle=b"\x80\x02}"),
    "protocol 4": in_zip({}, pickle=b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}."),
    "a list": in_zip([1, 2]),
    "no tensors": in_zip({"state_dict": {"w": 1}}),
    "no weights": in_zip({}),
    "a number for a name": in_zip({"state_dict": {3: tensor("0", "float32", 1, (1,), (1,))}}, ONE),
    "a missing storage": in_zip({"w": tensor("0", "float32", 1, (1,), (1,))}),
    "a short storage": in_zip({"w": tensor("0", "float32", 2, (2,), (1,))}, ONE),
    "beyond the storage": in_zip({"w": tensor("0", "float32", 1, (2,), (1,))}, ONE),
    "a negative offset": in_zip({"w": tensor("0", "float32", 1, (1,), (1,), offset=-1)}, ONE),
    "a negative stride": in_zip({"w": tensor("0", "float32", 1, (1,), (-1,))}, ONE),
    "an immense shape": in_zip({"w": tensor("0", "float32", 1, (2**40, 2**40), (0, 0))}, ONE),
    "an immense integer": in_zip({"w": tensor("0", "float32", 1, (2**2000,), (0,))}, ONE),
    "a gigabyte of one number": in_zip({"w": tensor("0", "float32", 1, (2**28,), (0,))}, ONE),
    "an immense storage": in_zip({"w": tensor("0", "float32", 2**40, (1,), (1,))}, ONE),
    "compressed": in_zip(
        {"w": tensor("0", "float32", 2**24, (2**24,), (1,))},
        {"0": bytes(2**26)},
        compression=zipfile.ZIP_DEFLATED,
    ),
    "big-endian": in_zip({}, extra={"byteorder": "big"}),
    "overlapping entries": overlapping_entries,
    "a memo far away": in_zip({}, pickle=b"\x80\x02}r\xff\xff\xff\x7f\x8a\xff" + bytes(255) + b"."),
    "an immense string": in_zip({}, pickle=b"\x80\x02X\xff\xff\xff\xff" + b"a" * 100),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_in_one_line_and_bounded_memory(tmp_path, kind):
    path = tmp_path / "broken.pth"
    BROKEN[kind](path)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as refusal:
        read_state(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(refusal.value)
    assert "broken.pth" in str(refusal.value)
    assert peak < 2 * path.stat().st_size + 10**7


def test_an_empty_set_is_read():
    assert unpickle(io.BytesIO(b"\x80\x02\x8f.")) == set()


def test_a_key_without_a_value_is_damage():
    with pytest.raises(ValueError):
        unpickle(io.BytesIO(b"\x80\x02}(X\x01\x00\x00\x00wNX\x01\x00\x00\x00vu."))


@pytest.mark.parametrize(
    "pickle",
    [
        b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
        b"\x80\x02" + b"](" * 200_000 + b"e" * 200_000 + b".",
    ],
    ids=["as a key", "of lists"],
)
def test_deep_nesting_does_not_exhaust_the_stack(tmp_path, pickle):
    with pytest.raises(CheckpointError):
        read_state(write_zip(tmp_path / "deep.pth", None, {}, pickle=pickle))


def test_deep_nesting_among_the_storage_keys_does_not_exhaust_the_stack(tmp_path):
    path = write_legacy(tmp_path / "deep.pth", {}, {}, 4)
    sound = path.read_bytes()
    path.write_bytes(sound.removesuffix(b"](e.") + b"])" + b"\x85" * 200_000 + b"a.")
    with pytest.raises(CheckpointError, match="no plain names"):
        read_state(path)


@pytest.mark.parametrize(
    "name", ["relu_k7_p7.state_dict.pth", "original_sequential_legacy_format.pth", "relu_k7_p7.safetensors"]
)
def test_a_truncated_file_is_refused_wherever_it_ends(oracles, tmp_path, name):
    whole = (oracles / "weights" / name).read_bytes()
    path = tmp_path / name
    for length in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 50), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_state(path)


def mutated(data, rng):
    """`data` with one to four of its bytes or stretches changed, repeated, moved, inserted or cut out."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 8, 64, 1000])
        stretch = slice(at, at + length)
        change = rng.randrange(6)
        if change == 0:
            data[stretch] = rng.randbytes(length)
        elif change == 1:
            data[stretch] = rng.choice([b"\x00", b"\xff", b"\x7f", b"\x80"]) * length
        elif change == 2:
            data[at:at] = data[stretch]
        elif change == 3:
            del data[stretch]
        elif change == 4 and data:
            data[stretch] = bytes(byte ^ (1 << rng.randrange(8)) for byte in data[stretch])
        elif change == 5:
            other = rng.randrange(len(data) + 1)
            data[stretch] = data[other : other + length]
    return bytes(data)


def fuzz(oracles, path, count, seed):
    """Reads `count` mutated files; only CheckpointError may come out. Returns how many were refused."""
    rng, refusals = random.Random(seed), []
    folder = oracles / "weights"
    names = (
        "gelu_k5_p2_gray.state_dict.pth",
        "original_sequential_legacy_format.pth",
        "gelu_k5_p2_gray.safetensors",
    )
    sound = [(folder / name).read_bytes() for name in names]
    with zipfile.ZipFile(folder / names[0]) as file:
        entries = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    pickle = entries.pop("data.pkl")
    storages = {name.removeprefix("data/"): data for name, data in entries.items() if name.startswith("data/")}
    for i in range(count):
        if i % 4 == 3:
            # Inside a sound zip file, so that its sums do not shield the pickle.
            write_zip(path, None, storages, pickle=mutated(pickle, rng))
        else:
            path.write_bytes(mutated(sound[i % 4], rng))
        try:
            state = read_state(path)
        except CheckpointError as error:
            refusals.append(str(error))
        else:
            assert all(isinstance(array, np.ndarray) for array in state.values())
    assert all(len(refusal.splitlines()) == 1 for refusal in refusals)
    return len(refusals)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_mutated_files_raise_nothing_but_our_own_error(oracles, tmp_path, quiet):
    assert fuzz(oracles, tmp_path / "mutated", 400, seed=0) > 200


@pytest.mark.slow
def test_many_mutated_files_raise_nothing_but_our_own_error(oracles, tmp_path, quiet):
    assert fuzz(oracles, tmp_path / "mutated", 20_000, seed=1) > 10_000
