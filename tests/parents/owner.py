"""A script that owns a process: starts it, tells of it on the standard output, and waits to be ended.

``python owner.py CLASS ADDRESS [sibling] [unready]``
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from parents import actors


def main(name, address, *options):
    process = getattr(actors, name)(address, actors.ActorHandler)
    process.start()
    sibling = None
    if 'sibling' in options:
        sibling = os.fork()
        if not sibling:
            signal.pause()
    endpoint = None if 'unready' in options else process.wait_ready()
    print(json.dumps([process.pid, endpoint, sibling]), flush=True)
    signal.pause()


if __name__ == '__main__':
    main(*sys.argv[1:])
