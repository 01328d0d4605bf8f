"""The table of docs/memory_and_time.md is what a training would say."""

import re
from pathlib import Path

import pytest

from keras_convmixer.training.memory import step_bytes
from keras_convmixer.variants import VARIANTS

PAGE = Path(__file__).parents[2] / "docs" / "memory_and_time.md"


def tables():
    """Side of the images in pixels, variant, precision, and batch size → GB, of each row."""
    for side, batches, rows in re.findall(
        r"GB at (\d+)×.*\n\n\| variant \| precision \| (.+) \|\n.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8")
    ):
        for row in rows.splitlines():
            variant, precision, *cells = row.strip("| ").split(" | ")
            yield int(side), variant.strip("`"), precision, dict(zip(map(int, batches.split(" | ")), cells))


@pytest.mark.parametrize("side, variant, precision, cells", tables())
def test_a_row_is_the_estimate(side, variant, precision, cells):
    kind, _, rematerialized = precision.partition(", ")
    sizes = {name: getattr(VARIANTS[variant], name) for name in ("dim", "depth", "patch_size")}
    for batch_size, cell in cells.items():
        estimate = step_bytes(sizes, (side, side), batch_size, kind, rematerialized == "rematerialized")
        assert cell == f"{estimate / 1e9:.1f}"


def test_every_variant_is_there_in_every_precision():
    rows = [(variant, precision) for _, variant, precision, _ in tables()]
    assert {variant for variant, _ in rows} == VARIANTS.keys() - {"convmixer_tiny"}
    assert len(rows) == len(set(rows)) == 4 * (len(VARIANTS) - 1)
