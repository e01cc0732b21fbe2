"""A Pyramid application with background processes, for real servers."""

import os
import signal
import threading
import time
from pathlib import Path

from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry


class Delegate:
    """Its messages tell of the process, and let it crash."""

    process = None

    def tell(self, data):
        return [
            200,
            {
                'pid': os.getpid(),
                'data': data,
                'settings': get_current_registry().settings['webapp.mark'],
                'thread': threading.current_thread().name,
            },
        ]

    def hold(self, path):
        """Last until a file appears."""
        Path(get_current_registry().settings['webapp.mark']).touch()
        while not Path(path).exists():
            time.sleep(0.01)
        return [200, 'held']

    def linger(self, data):
        """Leave a thread behind that does not end."""
        threading.Thread(target=time.sleep, args=[600]).start()
        return [200, 'lingers']

    def crash(self, data):
        os.kill(os.getpid(), signal.SIGKILL)


class Failing:
    """A delegate that cannot be made."""

    def __init__(self):
        raise RuntimeError('no such disk')


def call(request):
    """Pass a message on; tell how it went, and which worker did it."""
    name = request.matchdict['name']
    data = request.json_body if request.body else None
    timeout = float(request.params.get('timeout', 30))
    reply = request.zmq(name).call(request.matchdict['type'], data, timeout=timeout)
    return {'worker': os.getpid(), 'status': reply.status, 'body': reply.body}


def plain(request):
    return {'worker': os.getpid()}


def without_ini():
    folder = Path.cwd()
    return main(
        {},
        **{
            'webapp.mark': str(folder / 'mark'),
            'pyams_zmq.run_dir': str(folder / 'run'),
            'pyams_zmq.medias.app': 'webapp:without_ini',
        },
    )


def slow(global_config, **settings):
    Path(settings['webapp.mark']).touch()
    time.sleep(600)


def broken(global_config, **settings):
    return 1 / 0


def mistaken(global_config, **settings):
    return main(global_config, **{**settings, 'pyams_zmq.medias.workers': 'x'})


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include('pyams_zmq')
        config.add_zmq_process('medias', Delegate, workers=2)
        config.add_route('plain', '/')
        config.add_view(plain, route_name='plain', renderer='json')
        config.add_route('call', '/{name}/{type}')
        config.add_view(call, route_name='call', renderer='json')
    return config.make_wsgi_app()
