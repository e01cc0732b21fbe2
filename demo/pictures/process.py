"""The background process and the messages that it understands."""

from typing import Any

from pyams_zmq.exceptions import ReplyError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess

from .conversion import Converter


class MediaDelegate:
    """Its methods are the message types. All of them answer at once; the work is done elsewhere."""

    process: 'MediaProcess'

    def convert(self, data: dict[str, Any]) -> list[Any]:
        """Begin to convert pictures of the data folder."""
        converter = self.process.converter
        for picture_id in data['pictures']:
            if picture_id not in converter.store:
                raise ReplyError(404, f'There is no picture {picture_id}')
            converter.submit(picture_id)
        return [202, {'pictures': data['pictures']}]

    def status(self, data: dict[str, Any]) -> list[Any]:
        """Tell how far the newest pictures are."""
        store = self.process.converter.store
        newest = store.ids()[: data['limit']]
        return [200, {'pictures': [{'id': picture_id, **store.read(picture_id)} for picture_id in newest]}]


class MediaHandler(ZMQMessageHandler):
    """Hands the messages over to the delegate."""

    handler = MediaDelegate


class MediaProcess(ZMQProcess):
    """The background process."""

    converter: Converter

    def run(self) -> None:
        """Run in the child until it is stopped; the converter lives there, and as long."""
        with Converter(self.registry.settings) as self.converter:
            super().run()
