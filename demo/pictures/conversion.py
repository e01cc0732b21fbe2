"""The work of the background process, done in threads so that the process still answers messages."""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .renditions import RENDITIONS, PictureError, open_picture, refuse_big_pictures
from .samples import SAMPLES
from .store import Store

log = logging.getLogger(__name__)


class Converter:
    """Converts pictures, two at a time; leaving its ``with`` block ends it soon, with nothing half done."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.store = Store(settings['pictures.folder'])
        self.delay = float(settings['pictures.delay'])
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix='convert')
        self._jobs: dict[str, Future[None]] = {}
        self._stopping = threading.Event()
        refuse_big_pictures(int(settings['pictures.max_pixels']))

    def __enter__(self) -> 'Converter':
        for picture_id in reversed(self.store.ids()):  # what the last run left
            self.submit(picture_id)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, picture_id: str) -> None:
        """Convert a picture some time soon, unless that is done or on its way."""
        unfinished = self.store.read(picture_id)['state'] in ('queued', 'running')
        if unfinished and picture_id not in self._jobs:
            job = self._pool.submit(self._convert, picture_id)
            self._jobs[picture_id] = job
            job.add_done_callback(lambda _: self._jobs.pop(picture_id))

    def _convert(self, picture_id: str) -> None:
        record = self.store.read(picture_id)
        record['state'] = 'running'
        self.store.write(picture_id, record)
        try:
            complete = self._make_renditions(picture_id, record)
            record['state'] = 'done' if complete else 'queued'
        except PictureError as error:
            record.update(state='failed', error=str(error))
        except Exception:
            log.exception('Converting picture %s failed', picture_id)
            record.update(state='failed', error='Something went wrong here; the log tells more.')
        self.store.write(picture_id, record)
        log.info('Picture %s: %s', picture_id, record['state'])

    def _make_renditions(self, picture_id: str, record: dict[str, Any]) -> bool:
        """Whether all were made; the process may have to end before."""
        if sample := record.get('sample'):
            image = SAMPLES[sample]()
        else:
            image = open_picture(self.store.path(picture_id, 'original'))
        for name, rendition in RENDITIONS.items():
            if self._stopping.wait(self.delay):
                return False
            path = self.store.path(picture_id, f'{name}.{rendition.suffix}')
            record['renditions'][name] = rendition.save(image, path)
            self.store.write(picture_id, record)
        return True
