"""``python -m pyams_zmq``: the same as the command ``pyams_zmq``."""

import sys

from .scripts import main

if __name__ == '__main__':
    sys.exit(main())
