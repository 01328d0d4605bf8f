"""A font for tests, with two letters that no font of this machine need have."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen


@pytest.fixture
def own_font(tmp_path, monkeypatch):
    """Installs a font in which 犬 is a square and 猫 a triangle, and which has what is ASCII as narrow bars."""
    from matplotlib import font_manager

    shapes = {
        "dog": [(0, 0), (0, 900), (900, 900), (900, 0)],
        "cat": [(0, 0), (450, 900), (900, 0)],
        "bar": [(0, 0), (0, 900), (90, 900), (90, 0)],
    }
    glyphs = {}
    for name, (first, *others) in {".notdef": shapes["bar"], **shapes}.items():
        pen = TTGlyphPen(None)
        pen.moveTo(first)
        for point in others:
            pen.lineTo(point)
        pen.closePath()
        glyphs[name] = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap({ord("犬"): "dog", ord("猫"): "cat"} | dict.fromkeys(range(32, 127), "bar"))
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Own", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "own.ttf")
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(tmp_path / "own.ttf")
    return tmp_path / "own.ttf"


@pytest.fixture
def no_such_font(monkeypatch):
    """Leaves none but matplotlib's own fonts installed."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if "mpl-data" in font.fname])
