"""An HTML page taken apart, strictly: what a browser would mend is an error here."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page's elements and what they hold.

    Attributes:
        elements: (name, attributes) of each. text: all text but the style's, element by element, its spaces as one.
        tables: caption → rows of cells' text, the head first.
    """

    def __init__(self, text):
        super().__init__()
        assert text.startswith("<!doctype html>\n")
        self.elements, self.tables, self.style, self._text, self._open = [], {}, "", [], []
        self.feed(text)
        assert not self._open
        self.text = " ".join(" ".join(self._text).split())
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs))
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if self._open and self._open[-1] == "style":
            self.style += data
            return
        self._text.append(data)
        if "caption" in self._open:
            self._caption += data
        elif "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data

    def table(self, beginning):
        """The rows of the one table whose caption begins so."""
        (found,) = (rows for caption, rows in self.tables.items() if caption.startswith(beginning))
        return found

    def named(self, tag):
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def check_is_one_file(self):
        """Asserts that nothing is fetched and nothing is run, and that a browser is told so."""
        policies = [
            one["content"] for one in self.named("meta") if one.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
        assert not {"script", "link", "iframe", "object", "form"} & {name for name, _ in self.elements}
        for _, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "xlink:href"):
                assert attributes.get(name, "#").startswith(("data:image/", "#"))
        styles = self.style + " ".join(attributes.get("style", "") for _, attributes in self.elements)
        assert all(place.startswith("#") for place in re.findall(r"url\(['\"]?(.)", styles))
        assert "@import" not in styles

    def check_is_accessible(self):
        """Asserts what a screen reader goes by: language, main heading, heads of tables, words for pictures."""
        assert self.named("html") == [{"lang": "en"}]
        assert [name for name, _ in self.elements].count("h1") == 1
        assert all(one["alt"] for one in self.named("img"))
        assert all(one.get("aria-label") or one.get("aria-hidden") for one in self.named("svg"))
        assert all(one["scope"] in ("row", "col") for one in self.named("th"))
        assert all(self.tables)
