"""A delegate whose jobs run on other machines, or nearly: they share files with the tests only."""

import os
import signal
import time
from pathlib import Path

from pyams_zmq.jobs import job


class RemoteWork:
    process = None

    @job
    def double(self, number):
        return [200, 2 * number]

    @job
    def frames(self, picture, data):
        return [200, [picture.hex(), data]]

    @job
    def fail(self, reason):
        raise ValueError(reason)

    @job
    def hold(self, folder, progress):
        """Write the worker's process id into a file, and wait until there is another one called go."""
        progress(0, 2)
        progress(1, 2, 'half')
        Path(folder, f'{progress.job}-{progress.attempt}-{os.getpid()}').touch()
        try:
            while not Path(folder, 'go').exists():
                time.sleep(0.01)
                progress.check()
        finally:
            Path(folder, f'{progress.job}-over').touch()
        return [200, os.getpid()]

    @job
    def die(self, data):
        os.kill(os.getpid(), signal.SIGKILL)
