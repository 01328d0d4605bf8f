from types import SimpleNamespace

import keras
import pytest

from keras_convmixer.training.dtype_policy import Hardware, hardware, policy, said

PASCAL, VOLTA, AMPERE, HOPPER = (Hardware("GPU", capability=c) for c in ((6, 0), (7, 5), (8, 0), (9, 0)))
AMD = Hardware("GPU")
PLAIN, ZEN4, COOPER_LAKE, SAPPHIRE_RAPIDS = (
    Hardware("CPU", flags=frozenset(flags.split()), vendor=vendor)
    for flags, vendor in (
        ("fpu sse avx2 avx512f", "GenuineIntel"),
        ("avx2 avx512f avx512_bf16", "AuthenticAMD"),
        ("avx2 avx512f avx512_bf16", "GenuineIntel"),
        ("avx512f avx512_bf16 amx_bf16 amx_tile", "GenuineIntel"),
    )
)
ALL = (PASCAL, VOLTA, AMPERE, HOPPER, AMD, PLAIN, ZEN4, COOPER_LAKE, SAPPHIRE_RAPIDS, Hardware("TPU"))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_policy_stays_what_it_is(precision):
    assert {policy(precision, machine) for machine in ALL} == {precision}


def test_mixed_is_bfloat16_where_the_hardware_is_fast_at_it():
    for machine in (AMPERE, HOPPER, ZEN4, SAPPHIRE_RAPIDS, Hardware("TPU")):
        assert policy("mixed", machine) == "mixed_bfloat16"
    for machine in (PASCAL, VOLTA, AMD):
        assert policy("mixed", machine) == "mixed_float16"
    for machine in (PLAIN, COOPER_LAKE):
        assert policy("mixed", machine) == "float32"


def test_this_machine_is_described():
    found = hardware(("CPU:0",))
    assert (found.kind, found.capability) == ("CPU", (0, 0))


def test_on_jax_several_devices_have_what_the_least_of_them_has(monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert hardware().kind == "CPU"
    devices = [SimpleNamespace(platform="gpu", compute_capability=c) for c in ("9.0", "7.5")]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert hardware().capability == (9, 0)  # one process alone trains on the first
    assert len(hardware().names) == 1
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert hardware() == Hardware("GPU", capability=(7, 5))
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform="tpu")])
    assert hardware() == Hardware("TPU")


def test_what_a_recipe_leaves_open_is_said(capsys):
    assert said("mixed", AMPERE) == "mixed_bfloat16"
    assert capsys.readouterr().err == "training.precision: mixed is mixed_bfloat16 on this hardware\n"
    assert said("float32", AMPERE) == "float32"
    assert capsys.readouterr().err == ""


def test_bfloat16_where_it_is_slow_is_said(capsys):
    for machine in (PLAIN, COOPER_LAKE):
        assert said("mixed_bfloat16", machine) == "mixed_bfloat16"
        assert capsys.readouterr().err.startswith("training.precision: mixed_bfloat16 is slower than float32 on")
    for machine in (ZEN4, SAPPHIRE_RAPIDS, AMPERE, VOLTA, Hardware("TPU"), Hardware("CPU")):
        assert said("mixed_bfloat16", machine) == "mixed_bfloat16"
        assert capsys.readouterr().err == ""
