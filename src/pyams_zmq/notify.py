"""What systemd is told about a process that it runs with ``Type=notify``."""

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Tell systemd, where it has asked for it.

    :param state: ``'READY=1'`` or ``'STOPPING=1'``
    """
    address = os.environ.get('NOTIFY_SOCKET', '')
    if not address:
        return
    if address.startswith('@'):
        address = '\0' + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        logger.warning('systemd cannot be told %s: %s', state, error)
