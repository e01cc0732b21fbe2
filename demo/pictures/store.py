"""The data folder: one folder per picture, with the original, the renditions and a small JSON record.

The application and the jobs share it, so it has to be where they all find it under the same name. Everything
appears under its name in one step, so a reader never sees half a file, and what an interrupted run leaves
behind is harmless.
"""

import json
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import IO, Any

PICTURE_ID = '[0-9a-f]{24}'

_is_picture_id = re.compile(PICTURE_ID).fullmatch


class TooBigError(Exception):
    """The upload is bigger than what the application accepts."""


class Store:
    """Pictures in a folder, known by generated ids; the name of an upload is never part of a path."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, record: dict[str, Any], original: IO[bytes] | None = None, max_size: int = 0) -> str:
        """Keep a new picture and answer its id, which sorts by age."""
        picture_id = f'{time.time_ns():016x}{secrets.token_hex(4)}'
        draft = self.folder / f'new-{picture_id}'
        draft.mkdir()
        try:
            if original is not None:
                with (draft / 'original').open('wb') as target:
                    _copy(original, target, max_size)
            record = {**record, 'renditions': {}}
            (draft / 'record.json').write_text(json.dumps(record), encoding='ascii')
            draft.rename(self.folder / picture_id)
        except BaseException:
            shutil.rmtree(draft)
            raise
        return picture_id

    def ids(self) -> list[str]:
        """Every picture, the newest first."""
        return sorted(filter(_is_picture_id, (path.name for path in self.folder.iterdir())), reverse=True)

    def __contains__(self, picture_id: object) -> bool:
        return (
            isinstance(picture_id, str)
            and bool(_is_picture_id(picture_id))
            and self.path(picture_id).exists()
        )

    def path(self, picture_id: str, file: str = 'record.json') -> Path:
        return self.folder / picture_id / file

    def read(self, picture_id: str) -> dict[str, Any]:
        return json.loads(self.path(picture_id).read_bytes())

    def write(self, picture_id: str, record: dict[str, Any]) -> None:
        draft = self.path(picture_id, 'record.new')
        draft.write_text(json.dumps(record), encoding='ascii')
        draft.replace(self.path(picture_id))


def _copy(source: IO[bytes], target: IO[bytes], max_size: int) -> None:
    size = 0
    while block := source.read(1 << 16):
        size += len(block)
        if size > max_size:
            raise TooBigError
        target.write(block)
