"""The code of a page of the documentation."""

import re
import shlex
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^[!$%]?\s*(?:\S*[/\\])?convmixer(?:\.exe)?\s+(.+)$")
# Code within a sentence that is a whole command: of one word too few it names the command, in capitals a gap.
INLINE = re.compile(r"(convmixer|python|pip|tensorboard)( \S+){2,}|make \w+")
GAP = re.compile(r"\b[A-Z]{3,}\b|\.\.\.|…$")


def blocks(text, language=None):
    """The blocks of code of a page: all, or those of a language."""
    tokens = MarkdownIt("commonmark").parse(text)
    found = [token for token in tokens if token.type in ("fence", "code_block")]
    return [token.content for token in found if language in (None, token.info.strip())]


def commands(text):
    """The words after `convmixer` of each line of a block that is such a command."""
    found = (COMMAND.match(line) for line in lines(text))
    return [words(match[1]) for match in found if match]


def lines(text):
    """The lines of a block, without comments; one that ends in a backslash goes on in the next."""
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined) if line]


def words(text):
    """As a shell splits them, up to a redirection or a pipe."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.escape, lexer.commenters, lexer.whitespace_split = "", "", True
    found = []
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            break
        found.append(word)
    return found


def steps(text):
    """What a reader of a page would type, from top to bottom.

    Returns:
        ("shell", line) and ("python", block) pairs. A line has single spaces and, as a virtual environment that is
        active would have it, no folder of programs; on Windows too.
    """
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("fence", "code_block") and token.info.strip() == "python":
            found.append(("python", token.content))
        elif token.type in ("fence", "code_block") and not token.info.strip():
            found += [("shell", _plain(line)) for line in lines(token.content)]
        for child in token.children or ():
            if child.type == "code_inline" and INLINE.fullmatch(child.content) and not GAP.search(child.content):
                found.append(("shell", _plain(child.content)))
    return found


def _plain(line):
    return re.sub(r"^\.venv/(bin|Scripts)/", "", " ".join(line.split()).replace("\\", "/"))
