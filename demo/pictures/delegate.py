"""The messages of the background process: there is one, and it is a job."""

import time
from typing import Any

from pyams_zmq.exceptions import ReplyError
from pyams_zmq.jobs import Progress, job

from .renditions import RENDITIONS, PictureError, open_picture
from .samples import draw
from .store import Store


class PictureDelegate:
    """Its methods are the message types.

    A job may run on another machine, so all that it needs is in its message, and nothing in the process.
    """

    @job
    def convert(self, data: dict[str, Any], progress: Progress) -> list[Any]:
        """Make the renditions of a picture, except those that an attempt before has made."""
        store, picture_id = Store(data['folder']), data['picture']
        record = store.read(picture_id)
        ready = record['renditions']
        progress(len(ready), len(RENDITIONS))
        try:
            if sample := record.get('sample'):
                image = draw(sample, progress.attempt)
            else:
                image = open_picture(store.path(picture_id, 'original'), data['max_pixels'])
        except PictureError as error:
            # A status below 500: to try again by itself would not help.
            raise ReplyError(422, str(error)) from None
        for name, rendition in RENDITIONS.items():
            if name not in ready:
                progress(len(ready), len(RENDITIONS), rendition.label)
                time.sleep(data['delay'])
                progress.check()
                ready[name] = rendition.save(image, store.path(picture_id, rendition.file(name)))
                store.write(picture_id, record)
        return [200, {'renditions': len(ready)}]
