"""`python -m keras_convmixer` is `convmixer`."""

import sys

from keras_convmixer.cli import main

sys.exit(main())
