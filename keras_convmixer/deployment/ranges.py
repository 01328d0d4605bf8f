"""By what to round a ConvMixer's activations to 8 bits, so that little is lost.

A tensor of activations has one scale for all its channels. Three things make that do (docs/deployment.md has what
each is worth):

- In a block, x is an activation plus a shift for each channel, and where the activation is 0, as it often is, x is
  that shift. What rounding does to it is the same at every such pixel, so that a large kernel sums it up. Hence
  each channel of x, and of the block's sum z, is divided by a number that makes its shift a whole multiple of the
  scale. The kernels before and after make up for that, and their weights have a scale for each channel.
- By the same means, channels of a small range are enlarged half the way (in the logarithm) to the largest one's.
- The range of a sum, of a part of it, or of what comes out of a GELU is the one with the least squared error, which
  leaves rare outliers out. An error counts by what its channel is multiplied with afterwards. What goes into a GELU
  is cut where nothing comes out.

In every range 0 is a whole number of steps from its ends, as runtimes want it.
"""

import numpy as np

from keras_convmixer.deployment import fold

LEVELS = 255
# GELU(-4) = -0.0001
GELU_TAIL = -4.0
MOST_ENLARGED = 64
# of an image's values in a tensor are counted, whole pixels at even distances
MOST_COUNTED = 100_000


class Seen:
    """What a tensor of activations was seen to be.

    Attributes:
        low, high: least and greatest value of each channel, `(channels,)`.
        counts: how often each float16 number occurred, by its bits, among the values rounded to float16; or None.
            With `weights`, `(channels,)`, a value counts as much as its channel's.
    """

    def __init__(self, counted=True, weights=None):
        self.low, self.high, self.counts = np.inf, -np.inf, 0 if counted else None
        self._weights = weights

    def add(self, values):
        """Looks at an image's values `(..., channels)`."""
        values = values.reshape(-1, values.shape[-1])
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        if self.counts is not None:
            some = values[:: -(-values.size // MOST_COUNTED)].astype("float16")
            weights = None if self._weights is None else np.broadcast_to(self._weights, some.shape).ravel()
            self.counts = self.counts + np.bincount(some.view("uint16").ravel(), weights, minlength=2**16)


def divisors(numbers, seen):
    """For each block by what to divide its channels, `(dim,)`, and the range `(low, high)` that x then has.

    Args:
        numbers: a `fold.Folded`.
        seen: for each block its x, then z and whatever else has z's channels, as `Seen`.
    """
    shifts = [numbers.first.shift, *(block.after.shift for block in numbers.blocks[:-1])]
    for shift, (x, *others) in zip(shifts, seen):
        sizes = [np.maximum(-tensor.low, tensor.high) for tensor in (x, *others)]
        shares = [size / size.max() for size in sizes if size.any()]
        divisor = np.sqrt(np.max(shares, 0, initial=1 / MOST_ENLARGED))
        low, high = _bounds(x.low / divisor, x.high / divisor)
        scale = (high - low) / LEVELS
        # Rounded down, so that the range is kept. A shift that is less than the scale has to be rounded.
        steps = np.floor(np.abs(shift) / divisor / scale)
        divisor = np.where(steps > 0, np.abs(shift) / np.maximum(steps, 1) / scale, divisor)
        yield divisor.astype("float32"), on_grid(low, high)


def divided(numbers, divisors):
    """The same inference, with x and z of each block divided, channel by channel.

    Args:
        numbers: a `fold.Folded`. divisors: for each block an array `(dim,)` of positive numbers.
    """

    def affine(after, divisor):
        scale = np.ones_like(after.shift) if after.scale is None else after.scale
        return fold.Affine(scale / divisor, after.shift / divisor)

    blocks = []
    for block, divisor, following in zip(numbers.blocks, divisors, [*divisors[1:], None]):
        (kernel, bias), branch = block.depthwise, block.branch
        if fold.is_homogeneous(numbers.activation):
            bias = bias / divisor
        else:
            kernel, branch = kernel * divisor[:, None], (1.0 if branch is None else branch) / divisor
        pointwise = fold.Convolution(block.pointwise.kernel * divisor[:, None], block.pointwise.bias)
        after = None if following is None else affine(block.after, following)
        blocks.append(fold.Block(fold.Convolution(kernel, bias), branch, block.skip, pointwise, after))
    return numbers._replace(first=affine(numbers.first, divisors[0]), blocks=tuple(blocks))


def best_range(seen, *, before_gelu=False):
    """The (low, high) by which to round a tensor, `Seen`. Zero lies in it."""
    low, high = _bounds(seen.low, seen.high)
    if before_gelu:
        return max(low, GELU_TAIL), high
    if seen.counts is None:
        return low, high
    (bits,) = np.nonzero(seen.counts)
    values, counts = bits.astype("uint16").view("float16").astype("float32"), seen.counts[bits]

    def squared_error(low, high):
        """Of rounding to whole multiples of the range's scale, within the range."""
        if low == high:
            return np.inf
        scale, zero = scale_and_zero(low, high)
        steps = np.clip(np.round(values / scale), -zero, LEVELS - zero)
        return counts @ np.square(steps * scale - values)

    least, greatest = low, high
    for _ in range(2):
        low = min(np.linspace(0.1, 1, 19) * least, key=lambda low: squared_error(low, high))
        high = min(np.linspace(0.1, 1, 19) * greatest, key=lambda high: squared_error(low, high))
    return low, high


def scale_and_zero(low, high):
    """The step of a range, and how many of them lie below 0."""
    scale = (high - low) / LEVELS
    return scale, np.round(-low / scale)


def on_grid(low, high):
    """The range moved so that 0 is a whole number of steps from its ends."""
    scale, zero = scale_and_zero(low, high)
    return -zero * scale, (LEVELS - zero) * scale


def _bounds(low, high):
    """The least and the greatest of all channels' bounds, and 0 between them. Of zeros alone, (0, 1)."""
    low, high = min(low.min(), 0.0), max(high.max(), 0.0)
    return (low, high) if low < high else (0.0, 1.0)
