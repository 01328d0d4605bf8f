"""README.ko.md says the same as README.md: its commands, its Python, its table and its links are those."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH, KOREAN = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))


def code(text):
    """The lines of code, without their comments."""
    indented = re.findall(r"(?m)^    (\S.*)$", re.sub(r"(?s)```.*?```", "", text))
    lines = [*re.search(r"(?s)```python\n(.*?)```", text)[1].splitlines(), *indented]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line.strip()]


def test_the_code_is_the_same():
    assert code(KOREAN) == code(ENGLISH)


def test_the_table_is_the_same():
    def numbers(text):
        return [re.findall(r"`\w+`|[\d,.]*\d", row) for row in re.findall(r"(?m)^\| `convmixer_.*$", text)]

    assert numbers(KOREAN) == numbers(ENGLISH)
    assert len(numbers(KOREAN)) > 5


def test_each_names_the_other():
    assert "(README.ko.md)" in ENGLISH
    assert "(README.md)" in KOREAN
    assert set(re.findall(r"\]\(([^)#]+)", KOREAN)) - {"README.md"} <= set(re.findall(r"\]\(([^)#]+)", ENGLISH))
