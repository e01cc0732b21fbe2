"""Each mechanism, list of clients and kind of credentials: who gets a reply, and what is executed."""

from contextlib import ExitStack

import pytest

from doors import LISTS, MECHANISMS, Keys, options_of, status_of
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.socket import zmq_response, zmq_socket
from services import Process

#: Seconds that a client gives the process to reply; the refused are told long before.
LONG = 30


class Recorder:
    """Writes down all that it executes; what the process is called is where."""

    process = None

    def record(self, who):
        with open(self.process.name, 'a') as file:
            file.write(f'{who}\n')
        return [200, who]


class Handler(ZMQMessageHandler):
    handler = Recorder


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp('keys'))


@pytest.fixture(scope='module')
def doors(tmp_path_factory, keys):
    """A process for each mechanism and list, by both; its name is where it records."""
    folder = tmp_path_factory.mktemp('records')
    found = {}
    for mechanism in MECHANISMS:
        for who, (address, clients, _) in LISTS.items():
            process = Process(address, Handler, clients=clients, **options_of(mechanism, keys))
            process.name = str(folder / f'{mechanism} {who}')
            process.start()
            found[mechanism, who] = process
    for process in found.values():
        process.endpoint = process.wait_ready(LONG).replace('[::]', '127.0.0.1')
    yield found
    for process in found.values():
        process.stop()
    for process in found.values():
        process.join(LONG)


def executed(process):
    """What the process has executed since it was last asked."""
    try:
        with open(process.name, 'r+') as file:
            found = file.read().split('\n')[:-1]
            file.truncate(0)
    except FileNotFoundError:
        return []
    return found


@pytest.mark.parametrize('who', LISTS)
@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_who_gets_in(doors, keys, mechanism, who):
    process, welcome = doors[mechanism, who], LISTS[who][2]
    expected, seen = {}, {}
    for name, (theirs, options, status) in keys.credentials.items():
        expected[name] = status_of(mechanism, welcome, theirs, status)
        with ZMQClient(process.endpoint, timeout=LONG, **options) as client:
            reply = client.call('record', name)
        seen[name] = reply.status
        assert reply.delivered == (reply.status == 200)
    assert seen == expected
    assert executed(process) == [name for name, status in expected.items() if status == 200]


def test_the_classic_helpers(doors, keys):
    """They tell no more than that no reply came, as ever; all are asked first, so that all wait at once."""
    with ExitStack() as stack:
        asked = []
        for (mechanism, who), process in doors.items():
            for name, (theirs, options, status) in keys.credentials.items():
                socket = stack.enter_context(zmq_socket(process.endpoint, **options))
                socket.send_json(['record', name])
                welcome = status_of(mechanism, LISTS[who][2], theirs, status) == 200
                asked.append((welcome, socket, process, name))
        right, refused = {}, []
        for welcome, socket, process, name in asked:
            if welcome:
                right.setdefault(process, []).append(name)
                assert zmq_response(socket, timeout=LONG) == [200, name]
            else:
                refused.append(socket)
        # Who should be served has been; the others have had as long.
        for socket in refused:
            assert zmq_response(socket, timeout=0.002) == [503, 'Connection timeout']
        assert zmq_response(refused[-1], timeout=0.5) == [503, 'Connection timeout']
    for process in doors.values():
        assert executed(process) == right.get(process, [])
