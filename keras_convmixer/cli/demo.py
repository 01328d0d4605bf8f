"""`convmixer demo`."""

import ipaddress
import json
import sys
import tempfile
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import CLASSES_HELP, DATA_HELP, MODEL_HELP
from keras_convmixer.web import written

SUMMARY = "serve a page that classifies pictures in the browser"
EXAMPLE = "runs/d --port 8080"


def add_arguments(parser):
    parser.add_argument(
        "model",
        help=f"{MODEL_HELP}; or what export wrote with --format web or tflite: the folder, or a .tflite file",
    )
    parser.add_argument("--classes", metavar="FILE", help=CLASSES_HELP)
    parser.add_argument("--int8", action="store_true", help="also int8, to choose on the page")
    parser.add_argument(
        "--data", help=f"images that set int8's ranges: {DATA_HELP}; or photographs (default: the model's own)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument("--json", action="store_true", help="print the address as JSON")


def run(arguments):
    from keras_convmixer.web.server import serving

    with tempfile.TemporaryDirectory() as room:
        folder = _page(arguments, Path(room))
        with serving(folder, written.names(folder), arguments.host, arguments.port) as server:
            if not ipaddress.ip_address(server.server_address[0]).is_loopback:
                print(
                    "convmixer: whoever reaches this machine at an address of its own can open the page",
                    file=sys.stderr,
                )
            said = f"the page is at {server.url} (Ctrl-C ends it)"
            print(json.dumps({"url": server.url}) if arguments.json else said, flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print(file=sys.stderr)
    return 0


def _page(arguments, room):
    """The folder with the page: the one that was given, or one made in an empty folder."""
    given = {name: getattr(arguments, name) for name in ("classes", "int8", "data")}
    path = files.expanded(arguments.model)
    if written.is_page(path) and not any(given.values()):
        return path
    with quiet_tensorflow():
        from keras_convmixer.deployment.demo import make_site
    with quiet_native_code():
        make_site(arguments.model, room, **given)
    return room
