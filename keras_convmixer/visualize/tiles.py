"""Kernels and channels as a mosaic: of tiles `(tiles, rows, columns)`, which become colours `(..., 3)` in 0–1."""

import numpy as np

# pixels of the mosaic that each tile is magnified to, or more
_SIDE = 40


def some(tiles, most):
    """At most so many, evenly spaced."""
    return tiles[np.linspace(0, len(tiles) - 1, min(most, len(tiles))).round().astype(int)]


def signed(tiles):
    """Each scaled so that its largest magnitude is 1."""
    largest = np.abs(tiles).max(axis=tuple(range(1, tiles.ndim)), keepdims=True)
    return tiles / np.maximum(largest, np.finfo("float32").tiny)


def stretched(tiles):
    """Each scaled to 0–1."""
    least, most = tiles.min(axis=(1, 2), keepdims=True), tiles.max(axis=(1, 2), keepdims=True)
    return (tiles - least) / np.maximum(most - least, np.finfo("float32").tiny)


def grey(values):
    """Values in -1–1 from black to white."""
    return np.repeat((values[..., None] + 1) / 2, 3, axis=-1)


def coloured(name, values):
    """Values in 0–1 by a colour map of matplotlib's."""
    import matplotlib

    return matplotlib.colormaps[name](values)[..., :3]


def mosaic(tiles):
    """Tiles `(n, rows, columns, 3)` in 0–1 in a square of them, with white between them."""
    count, rows, columns, _ = tiles.shape
    zoom = -(-_SIDE // max(rows, columns))
    gap = max(2, zoom * max(rows, columns) // 14)
    across = int(np.ceil(np.sqrt(count)))
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    step_y, step_x = zoom * rows + gap, zoom * columns + gap
    sheet = np.ones((-(-count // across) * step_y - gap, across * step_x - gap, 3))
    for i, tile in enumerate(tiles):
        top, left = i // across * step_y, i % across * step_x
        sheet[top : top + zoom * rows, left : left + zoom * columns] = tile
    return sheet
