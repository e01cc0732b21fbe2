"""Doors of all kinds, and who comes to them: for the matrix of tests, and for ``make chaos``."""

from pathlib import Path

from pyams_zmq.curve import make_keys

AUTH = 'web:sesame open'

MECHANISMS = ('NULL', 'PLAIN', 'CURVE')

#: Lists of clients: where the process listens, ``clients``, and whether 127.0.0.1 or ::1 is on it.
LISTS = {
    'everybody': ('127.0.0.1', None, True),
    'listed': ('127.0.0.1', '192.0.2.1, 127.0.0.1', True),
    'unlisted': ('127.0.0.1', '192.0.2.1', False),
    'network': ('127.0.0.1', '127.0.0.0/8', True),
    'other network': ('127.0.0.1', '10.0.0.0/8', False),
    'network as mapped': ('127.0.0.1', '::ffff:127.0.0.0/104', True),
    'IPv6': ('[::1]', '::1', True),
    'IPv6 network': ('[::1]', '::/64', True),
    'IPv6 unlisted': ('[::1]', '2001:db8::1 127.0.0.1', False),
    'mapped': ('[::]', '127.0.0.1', True),
    'listed as mapped': ('127.0.0.1', '::ffff:127.0.0.1', True),
    'mapped unlisted': ('[::]', '192.0.2.1', False),
    'host name': ('127.0.0.1', 'localhost', True),
}


class Keys:
    """Keys of a process, of a client whom it knows, and of somebody else.

    :param folder: where they are made
    """

    def __init__(self, folder):
        clients = Path(folder, 'clients')
        clients.mkdir(0o700)
        self.server = Path(folder, 'medias')
        self.known, self.unknown = clients / 'web', Path(folder, 'unknown')
        for path in self.server, self.known, self.unknown:
            make_keys(path)

    @property
    def options(self):
        """What the process is made with."""
        return {'curve_secret_key': f'{self.server}.key_secret', 'curve_clients': self.known.parent}

    def curve(self, own, server=None):
        """What a client is made with."""
        return {'curve': (f'{server or self.server}.key', f'{own}.key_secret')}

    @property
    def credentials(self):
        """Who comes: with which mechanism, with what, and the reply of that mechanism's door."""
        return {
            'nothing': ('NULL', {}, 200),
            'password': ('PLAIN', {'auth': AUTH}, 200),
            'wrong password': ('PLAIN', {'auth': AUTH[:-1]}, 403),
            'wrong user': ('PLAIN', {'auth': f'root{AUTH}'}, 403),
            'key': ('CURVE', self.curve(self.known), 200),
            'unknown key': ('CURVE', self.curve(self.unknown), 403),
            'wrong key of the process': ('CURVE', self.curve(self.known, self.unknown), 401),
        }


def options_of(mechanism, keys):
    """What a process of that mechanism is made with."""
    return {'NULL': {}, 'PLAIN': {'auth': AUTH}, 'CURVE': keys.options}[mechanism]


def status_of(mechanism, welcome, theirs, status):
    """The status that a client sees.

    :param mechanism: that of the process
    :param welcome: whether the client's address is on the list
    :param theirs: the client's mechanism
    :param status: what that mechanism's door replies to its credentials
    """
    if mechanism != theirs:
        return 401
    return 403 if status == 200 and not welcome else status
