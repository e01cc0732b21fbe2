"""``pyams_zmq keys``: make keys for encrypted connections."""

import argparse

from ..curve import make_keys
from ..exceptions import ExitCode
from .output import write, write_json

_EPILOG = """\
Each process and each client has a pair of its own. PATH.key_secret never leaves the host and the user whom it
is made for: make it there. PATH.key is no secret, but who may change it may take the other side's place. The
name of a client's file is the name under which the process knows it.

examples:
  pyams_zmq keys keys/medias
  pyams_zmq keys keys/web --json
"""

_NEXT = """\
{secret}: the secret key, for the owner of the file alone
{public}: the public key

Where it is the key of a process NAME, in the settings of that:
  pyams_zmq.NAME.curve_secret_key = {secret}
  pyams_zmq.NAME.curve_clients = folder with the public keys of its clients
and give {public} to the clients.

Where it is the key of a client, in its settings:
  pyams_zmq.NAME.curve_key = {secret}
  pyams_zmq.NAME.curve_server_key = public key of the process
and copy {public} to the process's folder curve_clients: it lets {name} in once it is started again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        'Make a pair of keys for encrypted connections (CURVE): PATH.key and PATH.key_secret.'
    )
    parser.epilog = _EPILOG
    parser.add_argument('path', metavar='PATH', help="the files' path, without what they end in")
    parser.add_argument('--json', action='store_true', help='write JSON, for scripts')


def main(arguments: argparse.Namespace) -> int:
    """Make the keys."""
    made = make_keys(arguments.path)
    public, secret = str(made.public), str(made.secret)
    if arguments.json:
        write_json({'public': public, 'secret': secret, 'public_key': made.public_key})
    else:
        write(_NEXT.format(public=public, secret=secret, name=made.public.stem))
    return ExitCode.OK
