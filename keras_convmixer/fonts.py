"""Names in pictures, in a font that has their letters."""

import functools


def font_for(text):
    """The path of an installed font with all letters of a text, matplotlib's own if it will do, or None."""
    from matplotlib import font_manager

    own = font_manager.findfont("DejaVu Sans")
    # A font of last resort has a box for every letter there is.
    others = [
        font for font in font_manager.fontManager.ttflist if "lastresort" not in font.name.lower().replace(" ", "")
    ]
    others.sort(key=lambda font: (font.style != "normal", font.weight != 400))  # plain ones first
    letters = set(map(ord, text))
    return next((path for path in (own, *(font.fname for font in others)) if letters <= _letters(path)), None)


@functools.cache
def _letters(path):
    from matplotlib.ft2font import FT2Font

    try:
        return FT2Font(path).get_charmap().keys()
    except (OSError, RuntimeError):  # It is damaged, or has gone since matplotlib made its list.
        return frozenset()
