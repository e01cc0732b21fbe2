"""``pyams_zmq call``: send a message and show the reply."""

import argparse
import json
import sys
from typing import Any

from ..exceptions import ExitCode, SettingError
from . import target
from .output import write, write_json

_EPILOG = """\
The exit code is 0 where the reply's status is one of success (200 to 299), 1 where it is not, and 2 where the
command line or a setting makes no sense.

examples:
  pyams_zmq call production.ini medias convert '{"path": "holiday.avi"}'
  pyams_zmq call production.ini medias convert - < message.json
  pyams_zmq call --address ipc:///run/app/medias.sock _status
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Send a message to a process and show the reply.'
    parser.epilog = _EPILOG
    parser.usage = (
        '%(prog)s [options] APP NAME TYPE [JSON]\n       %(prog)s [options] --address ADDRESS TYPE [JSON]'
    )
    parser.add_argument(
        'words',
        nargs='+',
        metavar='APP NAME TYPE JSON',
        help='the .ini file and the name of the process, unless there is an --address; the type of the'
        ' message; its data as JSON, null by default, - to read them from the standard input',
    )
    target.add_options(parser)


def main(arguments: argparse.Namespace) -> int:
    """Send the message."""
    words = arguments.words
    source, name = (None, []) if arguments.address is not None else (words[0], words[1:2])
    message = words if arguments.address is not None else words[2:]
    if not 1 <= len(message) <= 2:
        raise SettingError('call takes APP NAME TYPE [JSON], or --address ADDRESS TYPE [JSON]')
    [process] = target.find(arguments, source, name)
    reply, _ = process.call(message[0], _data(*message[1:]), arguments.timeout)
    if arguments.json:
        write_json({'status': reply.status, 'body': reply.body, 'delivered': reply.delivered})
    else:
        body = (
            reply.body
            if isinstance(reply.body, str)
            else json.dumps(reply.body, indent=2, ensure_ascii=False)
        )
        write(f'{reply.status}\n{body}')
    return ExitCode.OK if reply.ok else ExitCode.ERROR


def _data(text: str = 'null') -> Any:
    try:
        return json.loads(sys.stdin.read() if text == '-' else text)
    except (ValueError, RecursionError) as error:
        raise SettingError(
            f"the data are not JSON ({error}); a shell wants them in single quotes: '{{\"a\": 1}}'"
        ) from None
