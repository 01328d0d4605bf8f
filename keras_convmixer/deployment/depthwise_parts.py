"""A large depthwise kernel as the sum of small ones that TFLite's fast path takes.

XNNPACK, which runs TFLite's convolutions on CPUs, has depthwise kernels of 4, 9 and 25 taps (the smallest that
holds a kernel is used, the rest is idle). A kernel of more than 25 taps is left to a routine several times slower.

A sum of depthwise convolutions with smaller kernels computes the same. Here the parts are dilated: the offsets of
their taps form an arithmetic progression in each direction, centred as "same" padding centres it, so that each
part is one operation on the unpadded image. A 7×7 kernel is three parts: rows -3, -1, 1, 3 by columns ±3 and by
columns -2 to 2, and rows -2, 0, 2 by all columns. A 9×9 kernel is five: rows -4, -2, 0, 2, 4 by columns -4, -2, 0,
2, 4 and by columns -3, -1, 1, 3; and rows -3, -1, 1, 3 by columns ±4, by columns ±3 and by columns -2 to 2.
"""

import functools
from typing import NamedTuple

# What a part costs, from measurements of single operations on 32×32×192 float32 maps: about as much as the kernel
# that runs it has taps, and for the addition of its result as much as a few more.
KERNELS = (4, 9, 25)
ADDITION = 4


class Progression(NamedTuple):
    """Offsets start, start + step, ... of `count` taps from the pixel that "same" padding centres a kernel on."""

    count: int
    step: int

    @property
    def offsets(self):
        start = -(self.step * (self.count - 1) // 2)
        return tuple(start + self.step * i for i in range(self.count))


class Part(NamedTuple):
    """Which taps of a kernel a part has: a progression of rows by one of columns."""

    rows: Progression
    columns: Progression


def partition(height, width):
    """The cheapest parts of a kernel of this size, each tap in one of them.

    Args:
        height, width: of the kernel, 1 to 31.

    Returns:
        A tuple of `Part`s; a single one where the kernel has at most 25 taps.
    """
    most = KERNELS[-1]
    if height * width <= most:
        return (whole(height, width),)
    best = {
        count: min(
            (cover for cover in covers(width) if all(count * part.count <= most for part in cover)),
            key=lambda cover: sum(_cost(count * part.count) for part in cover),
            default=None,
        )
        for count in range(1, height + 1)
    }

    def parts(rows):
        return [Part(row, column) for row in rows for column in best[row.count]]

    possible = [parts(rows) for rows in covers(height) if all(best[row.count] for row in rows)]
    return tuple(min(possible, key=lambda parts: sum(_cost(r.count * c.count) for r, c in parts)))


def whole(height, width):
    """All of a kernel as one `Part`."""
    return Part(Progression(height, 1), Progression(width, 1))


def taps(part, kernel):
    """The taps `(rows, columns, ...)` that a part has of a kernel `(height, width, ...)`."""
    rows, columns = (
        [offset + (side - 1) // 2 for offset in progression.offsets]
        for progression, side in zip(part, kernel.shape)
    )
    return kernel[rows][:, columns]


@functools.cache
def covers(size):
    """The ways to cover the offsets of a kernel's side with progressions, each offset once."""
    before = (size - 1) // 2
    progressions = [
        Progression(count, step)
        for count in range(1, size + 1)
        for step in range(1, size if count > 1 else 2)
        if set(Progression(count, step).offsets) <= set(range(-before, size - before))
    ]
    found = []

    def search(left, chosen):
        if not left:
            found.append(tuple(chosen))
            return
        # The outermost offset that is left is in one of the progressions that fit into what is left.
        outermost = max(left, key=abs)
        for progression in progressions:
            if outermost in progression.offsets and left.issuperset(progression.offsets):
                search(left.difference(progression.offsets), [*chosen, progression])

    search(frozenset(range(-before, size - before)), [])
    return found


def _cost(taps):
    return next(kernel for kernel in KERNELS if taps <= kernel) + ADDITION
