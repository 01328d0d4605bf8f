"""`convmixer report`."""

import sys

from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import DATA_HELP

SUMMARY = "make a page of a run, or one that compares several"
EXAMPLE = "runs/a\n  convmixer report runs/a runs/b --out comparison.html"


def add_arguments(parser):
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run; several, or a folder of runs, are compared")
    parser.add_argument(
        "--data",
        help=f"of one run: what to measure it on (default: its own data, if it is still there): {DATA_HELP}",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the page (default: report.html in the run's folder, or comparison.html here)"
    )


def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer.experiments.report import report
    with quiet_native_code():
        out = report(arguments.runs, data=arguments.data, out=arguments.out)
    print(f"wrote {out}", file=sys.stderr)
    return 0
