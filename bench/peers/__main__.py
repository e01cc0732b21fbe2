"""One side of a peer: ``python -m bench.peers NAME serve PORT OPTIONS``, or ``… NAME drive``."""

import json
import sys
from functools import partial
from importlib import import_module
from typing import Any

from bench import work


def perform(peer: Any, do: str, port: int, client: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Do what a line of the input says.

    :param do: name of a function of the peer, or of :mod:`bench.work`
    :param client: options of the peer's ``connect``
    :returns: what was measured, or ``{'error': …}``
    """
    function = getattr(peer, do, None)
    if function is None:
        function = partial(getattr(work, do), partial(peer.connect, port, **client))
    else:
        function = partial(function, port, **client)
    try:
        return dict(function(**arguments))
    except Exception as error:
        return {'error': f'{type(error).__name__}: {error}'}


def main() -> None:
    """Serve, or do what the lines of the standard input say, and write a line about each."""
    name, role, *rest = sys.argv[1:]
    peer = import_module(f'bench.peers.{name}')
    if role == 'serve':
        peer.serve(int(rest[0]), **json.loads(rest[1]))
        return
    for line in sys.stdin:
        print(json.dumps(perform(peer, **json.loads(line))), flush=True)


if __name__ == '__main__':
    main()
