"""``pyams_zmq call``: send a message and show the reply."""

import argparse
import json
import sys
from typing import Any

from ..exceptions import ExitCode, SettingError
from . import target
from .output import as_json, write, write_json

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
    target.add_words(
        parser,
        'TYPE [JSON]',
        'the type of the message; its data as JSON, null by default, - to read them from the standard input',
        most=2,
    )
    target.add_options(parser)


def main(arguments: argparse.Namespace) -> int:
    """Send the message."""
    process, message = target.find_one(arguments)
    reply, _ = process.call(message[0], _data(*message[1:]), arguments.timeout)
    if arguments.json:
        write_json({'status': reply.status, 'body': reply.body, 'delivered': reply.delivered})
    else:
        body = reply.body if isinstance(reply.body, str) else as_json(reply.body, ensure_ascii=False)
        write(f'{reply.status}\n{body}')
    return ExitCode.OK if reply.ok else ExitCode.ERROR


def _data(text: str = 'null') -> Any:
    try:
        return json.loads(sys.stdin.read() if text == '-' else text)
    except (ValueError, RecursionError) as error:
        raise SettingError(
            f"the data are not JSON ({error}); a shell wants them in single quotes: '{{\"a\": 1}}'"
        ) from None
