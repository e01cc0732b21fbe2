"""The public names, parameters, defaults and bytes on the wire: what code written for 2.0.0 relies on."""

import inspect
import json
import math
import multiprocessing
import subprocess
from importlib import import_module

import pytest
import zmq
from pyramid.config import Configurator
from pyramid.interfaces import ITranslationDirectories
from translationstring import TranslationString
from zmq.eventloop.zmqstream import ZMQStream
from zope.interface import Interface, implementedBy
from zope.interface.interfaces import IObjectEvent, ObjectEvent
from zope.interface.verify import verifyObject

import pyams_zmq
from peers import STRICT_PYTHON
from pyams_zmq import interfaces
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess, process_exit_func
from pyams_zmq.socket import zmq_response, zmq_socket
from services import Echo, EchoHandler

REQUIRED = inspect.Parameter.empty

SIGNATURES = {
    'pyams_zmq:includeme': [('config', REQUIRED)],
    'pyams_zmq.include:include_package': [('config', REQUIRED)],
    'pyams_zmq.process:ZMQProcess': [
        ('bind_addr', REQUIRED),
        ('handler', REQUIRED),
        ('auth', None),
        ('clients', None),
        ('registry', None),
    ],
    'pyams_zmq.process:ZMQProcess.run': [('self', REQUIRED)],
    'pyams_zmq.process:ZMQProcess.setup': [('self', REQUIRED)],
    'pyams_zmq.process:ZMQProcess.init_stream': [('self', REQUIRED)],
    'pyams_zmq.process:ZMQProcess.start': [('self', REQUIRED)],
    'pyams_zmq.process:ZMQProcess.stop': [('self', REQUIRED)],
    'pyams_zmq.process:ZMQProcess.exit': [('self', REQUIRED), ('num', None), ('frame', None)],
    'pyams_zmq.process:ZMQProcess.stream': [
        ('self', REQUIRED),
        ('sock_type', REQUIRED),
        ('addr', REQUIRED),
        ('bind', REQUIRED),
        ('callback', None),
        ('subscribe', b''),
    ],
    'pyams_zmq.process:process_exit_func': [('process', None)],
    'pyams_zmq.handler:ZMQMessageHandler': [
        ('process', REQUIRED),
        ('stream', REQUIRED),
        ('stop', REQUIRED),
        ('handler', None),
        ('json_load', -1),
    ],
    # The name of the one parameter is nobody's business, since it is called by position.
    'pyams_zmq.handler:ZMQMessageHandler.__call__': [('self', REQUIRED), (None, REQUIRED)],
    'pyams_zmq.socket:zmq_socket': [
        ('address', REQUIRED),
        ('socket_type', zmq.REQ),
        ('linger', 0),
        ('protocol', 'tcp'),
        ('auth', None),
    ],
    'pyams_zmq.socket:zmq_response': [('socket', REQUIRED), ('flags', zmq.POLLIN), ('timeout', 10)],
}


def look_up(name):
    module, _, path = name.partition(':')
    found = import_module(module)
    for part in path.split('.'):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize('name', SIGNATURES)
def test_parameters_have_their_names_places_and_defaults(name):
    parameters = list(inspect.signature(look_up(name)).parameters.values())
    contract = SIGNATURES[name]
    faithful, added = parameters[: len(contract)], parameters[len(contract) :]
    assert [
        (p.name if wanted else None, p.default) for p, (wanted, _) in zip(faithful, contract, strict=True)
    ] == (contract)
    assert {p.kind for p in faithful} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    # What is new is given by keyword, and need not be given.
    assert {p.kind for p in added} <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert REQUIRED not in {p.default for p in added if p.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    'name', ['IZMQProcess', 'IZMQMessageHandler', 'IZMQProcessStartedEvent', 'ZMQProcessStartedEvent']
)
def test_names_of_the_interfaces(name):
    assert hasattr(interfaces, name)


def test_process_is_a_multiprocessing_process():
    assert issubclass(ZMQProcess, multiprocessing.Process)
    process = ZMQProcess('127.0.0.1:5555', EchoHandler)
    assert isinstance(process, multiprocessing.Process)
    assert process.daemon is False


def test_class_attributes():
    assert ZMQProcess.socket_type == zmq.REP
    assert ZMQProcess.auth_thread is None
    assert ZMQMessageHandler.handler is None


def test_attributes_of_a_process_with_defaults():
    process = ZMQProcess('127.0.0.1:5555', EchoHandler)
    assert process.context is None
    assert process.loop is None
    assert process.bind_addr == '127.0.0.1:5555'
    assert process.rep_stream is None
    assert process.handler is EchoHandler
    assert process.passwords is None
    assert process.clients is None
    assert process.registry is None


def test_attributes_of_a_process_with_everything():
    registry = object()
    process = ZMQProcess(('127.0.0.1', 5555), EchoHandler, 'user:pass:word', '127.0.0.1 10.0.0.1', registry)
    assert process.bind_addr == ('127.0.0.1', 5555)
    assert process.passwords == {'user': 'pass:word'}
    assert process.clients == ['127.0.0.1', '10.0.0.1']
    assert process.registry is registry
    # multiprocessing's own are as they were.
    assert process.name.startswith('ZMQProcess-')
    assert process.pid is None
    assert not process.is_alive()


@pytest.mark.parametrize('nothing', [None, ''])
def test_empty_auth_and_clients_are_none(nothing):
    process = ZMQProcess('127.0.0.1', EchoHandler, nothing, nothing)
    assert process.passwords is None
    assert process.clients is None


def test_attributes_of_a_handler():
    process, stream = object(), object()

    def stop():
        pass

    handler = EchoHandler(process, stream, stop)
    assert handler.process is process
    assert handler.rep_stream is stream
    assert handler._stop is stop
    assert handler._json_load == -1
    assert type(handler.rep_handler) is Echo
    assert handler.rep_handler.process is process


def test_a_handler_takes_a_delegate_and_the_index_of_the_json():
    delegate = Echo()
    handler = ZMQMessageHandler(None, None, None, delegate, 0)
    assert handler.rep_handler is delegate
    assert handler._json_load == 0


def test_what_implements_what():
    assert interfaces.IZMQProcess in implementedBy(ZMQProcess)
    assert interfaces.IZMQMessageHandler in implementedBy(ZMQMessageHandler)
    verifyObject(interfaces.IZMQProcess, ZMQProcess('127.0.0.1', EchoHandler))
    verifyObject(interfaces.IZMQMessageHandler, EchoHandler(None, None, None))


def test_interfaces_can_be_extended():
    class IOwnProcess(interfaces.IZMQProcess):
        """As consumers declare theirs."""

    assert issubclass(type(IOwnProcess), type(Interface))
    assert IOwnProcess.extends(interfaces.IZMQProcess)
    assert {'setup', 'stream', 'init_stream', 'start', 'stop', 'socket_type'} <= set(
        IOwnProcess.names(all=True)
    )
    assert 'handler' in interfaces.IZMQMessageHandler


def test_started_event():
    subject = object()
    event = interfaces.ZMQProcessStartedEvent(subject)
    assert event.object is subject
    assert isinstance(event, ObjectEvent)
    assert interfaces.IZMQProcessStartedEvent.providedBy(event)
    assert interfaces.IZMQProcessStartedEvent.extends(IObjectEvent)


def test_a_process_that_was_not_started_is_left_alone():
    process_exit_func()
    process_exit_func(None)
    process = ZMQProcess('127.0.0.1', EchoHandler)
    process_exit_func(process)
    process_exit_func(process=process)
    assert process.pid is None


def test_translations():
    message = pyams_zmq._('message')
    assert isinstance(message, TranslationString)
    assert message.domain == 'pyams_zmq'


def test_include_adds_the_translations():
    config = Configurator()
    config.include('pyams_zmq')
    config.commit()
    directories = config.registry.queryUtility(ITranslationDirectories)
    assert any(
        directory.replace('\\', '/').rstrip('/').endswith('pyams_zmq/locales') for directory in directories
    )


def test_include_by_its_second_name():
    config = Configurator()
    config.include('pyams_zmq.include.include_package')
    config.make_wsgi_app()
    assert config.registry.queryUtility(ITranslationDirectories)


def test_include_twice():
    config = Configurator()
    config.include('pyams_zmq')
    config.include('pyams_zmq')
    config.make_wsgi_app()


OPTIONAL = {
    'cornice',
    'dask',
    'distributed',
    'pyams_utils',
    'pyramid_debugtoolbar',
    'pyramid_mako',
    'pyramid_tm',
    'pytest',
    'sqlalchemy',
    'transaction',
    'ZODB',
}


def test_importing_the_package_imports_nothing_optional():
    script = (
        'import sys\n'
        'import pyams_zmq, pyams_zmq.process, pyams_zmq.handler, pyams_zmq.socket, pyams_zmq.client\n'
        'import pyams_zmq.interfaces, pyams_zmq.include\n'
        'print(*{name.partition(".")[0] for name in sys.modules})'
    )
    output = subprocess.run(
        [*STRICT_PYTHON, '-c', script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(output.stdout.split()) & OPTIONAL == set()
    assert output.stderr == ''


class Setup(ZMQProcess):
    """Looks at itself once it is set up, from the outside of the package."""

    def init_stream(self):
        super().init_stream()
        kinds = {
            'context': isinstance(self.context, zmq.Context),
            'loop': type(self.loop).__mro__,
            'rep_stream': isinstance(self.rep_stream, ZMQStream),
            'auth': [
                callable(getattr(self.auth_thread, name, None))
                for name in ('allow', 'deny', 'configure_plain', 'configure_curve', 'stop')
            ],
        }
        kinds['loop'] = any(
            f'{one.__module__}.{one.__name__}' == 'tornado.ioloop.IOLoop' for one in kinds['loop']
        )

        def look(frames):
            self.rep_stream.send_json([200, kinds])

        self.rep_stream.on_recv(look, copy=True)


def test_attributes_of_the_running_process(start, call):
    process = start(handler=EchoHandler, cls=Setup, auth='user:password')
    reply = call(process, 'anything', auth='user:password')
    assert reply == (200, {'context': True, 'loop': True, 'rep_stream': True, 'auth': [True] * 5})


# What travels


@pytest.fixture
def ear():
    """A ROUTER that hears what callers send, and its address."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.rcvtimeo = 10_000
    port = socket.bind_to_random_port('tcp://127.0.0.1')
    yield socket, f'127.0.0.1:{port}'
    socket.close()
    context.term()


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        (['echo', {'a': [1, None, True], 'b': 'x'}], b'["echo", {"a": [1, null, true], "b": "x"}]'),
        (['écho', 'ü€\U0001f600'], b'["\\u00e9cho", "\\u00fc\\u20ac\\ud83d\\ude00"]'),
        (['nan', [math.nan, math.inf, -math.inf]], b'["nan", [NaN, Infinity, -Infinity]]'),
        (['quiet', None], b'["quiet", null]'),
    ],
)
def test_the_bytes_of_a_request(ear, message, expected):
    router, address = ear
    with zmq_socket(address) as socket:
        socket.send_json(message)
        identity, *frames = router.recv_multipart()
        assert frames == [b'', expected]
        router.send_multipart([identity, b'', b'[200, "done"]'])
        assert zmq_response(socket) == [200, 'done']


@pytest.mark.parametrize(
    ('data', 'expected'),
    [
        ({'a': [1, None, True], 'b': 'x'}, b'[200, {"a": [1, null, true], "b": "x"}]'),
        ('ü€\U0001f600', b'[200, "\\u00fc\\u20ac\\ud83d\\ude00"]'),
        ([math.nan, math.inf, -math.inf], b'[200, [NaN, Infinity, -Infinity]]'),
    ],
)
def test_the_bytes_of_a_reply(start, data, expected):
    process = start()
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(process.endpoint)
        socket.send(json.dumps(['echo', data]).encode())
        assert socket.poll(10_000)
        assert socket.recv_multipart() == [expected]
        # As it would be from a client in another language.
        socket.send(json.dumps(['echo', data], ensure_ascii=False, separators=(',', ':')).encode())
        assert socket.poll(10_000)
        assert socket.recv_multipart() == [expected]


def test_none_travels_as_null(start):
    process = start()
    with zmq_socket(process.endpoint) as socket:
        socket.send_json(['nothing', None])
        assert socket.poll(10_000)
        assert socket.recv() == b'null'
        socket.send_json(['nothing', None])
        assert zmq_response(socket) is None


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('workers', [-1, True, 1.5, '2', None]),
        ('max_in_flight', [0, -1, True, 1.5, '2', None]),
        ('stop_timeout', [0, -1, float('nan'), float('inf'), '30', None, True]),
        ('reply_timeout', [0, -1, float('nan'), float('inf'), '60', True]),
    ],
)
def test_class_attributes_that_make_no_sense(name, values):
    for value in values:
        with pytest.raises(ValueError, match=name):
            type('Other', (ZMQProcess,), {name: value})('127.0.0.1', ZMQMessageHandler)
