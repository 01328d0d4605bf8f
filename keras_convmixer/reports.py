"""What every report gives: a table for people, JSON and CSV for programs."""

import abc
import csv
import io
import json

from keras_convmixer.errors import visible


class Report(abc.ABC):
    """A result to show or to keep.

    Names in it may be a stranger's. What would steer a terminal in them is escaped, in a table as in JSON.
    """

    @abc.abstractmethod
    def lines(self) -> list[str]:
        """The lines of the table."""

    @abc.abstractmethod
    def summary(self):
        """The same as plain values, which JSON takes."""

    def as_table(self) -> str:
        """The figures as lines of text, for people."""
        return "\n".join(map(visible, self.lines()))

    def as_json(self) -> str:
        """All of it as JSON."""
        text = json.dumps(self.summary(), indent=2, ensure_ascii=False)
        return "\n".join(visible(line, json.dumps) for line in text.split("\n"))


class Tabular(Report):
    """A report with rows and columns at heart."""

    @abc.abstractmethod
    def records(self) -> list[list]:
        """The columns' names, then the values of each row."""

    def as_csv(self) -> str:
        """The records as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.records())
        return text.getvalue()
