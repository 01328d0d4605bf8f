"""`convmixer runs`."""

SUMMARY = "compare runs: what they differ in, accuracy, time"
EXAMPLE = "runs/a runs/b sweeps/kernels"


def add_arguments(parser):
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a run, or a folder of runs")
    parser.add_argument("--out", help="folder for runs.csv, runs.md and runs.png")
    form = parser.add_mutually_exclusive_group()
    for name in ("json", "csv", "markdown"):
        form.add_argument(f"--{name}", action="store_true", help=f"print {name.capitalize()}")


def run(arguments):
    from keras_convmixer.experiments.runs import compare

    found = compare(arguments.folders)
    if arguments.out:
        found.save(arguments.out)
    forms = {"json": found.as_json, "csv": found.as_csv, "markdown": found.as_markdown}
    chosen = next((form for name, form in forms.items() if getattr(arguments, name)), found.as_table)
    print(chosen().rstrip("\n"))
    return 0
