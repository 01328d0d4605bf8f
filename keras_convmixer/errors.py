"""Errors that tell a user something, and the words that they share."""

import difflib
import unicodedata

# Unicode's control characters, line and paragraph separators, and what stands for bytes that are no UTF-8.
_STEERING = ("Cc", "Zl", "Zp", "Cs")


class UserError(ValueError):
    """What was given cannot be used: an argument, a file, a recipe, data.

    The message is one line that says what was wrong, what was expected and what to do. Any other ValueError is a
    fault of this package.
    """


def did_you_mean(name, known, otherwise="known: {}", cutoff=0.5):
    """A hint for a name that is not among those known: the nearest, or `otherwise` with all of them."""
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff)
    return f"did you mean {nearest[0]!r}?" if nearest else otherwise.format(", ".join(known))


def visible(text, quote=repr):
    """Text that may be a stranger's, as a terminal shows it in one line and does not obey it.

    Args:
        text: a name from a file, say. quote: gives the characters that a terminal or a line cannot hold in quotes,
            escaped: as Python does, or with `json.dumps` as JSON does.
    """
    return "".join(quote(c)[1:-1] if unicodedata.category(c) in _STEERING else c for c in str(text))


def one_line(error):
    """An exception's message in one visible line; its type's name where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return visible(f"{error.filename or ''}{': ' if error.filename else ''}{error.strerror}")
    text = getattr(error, "message", None) or str(error)
    return visible(" ".join(text.split())) or type(error).__name__


def first_line(error):
    """The first line of what a library says, and no more than a line holds; the rest is for its own developers."""
    return str(error).strip().partition("\n")[0][:400]
