"""What is made of a picture. Plain Pillow: nothing here knows about processes or messages."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

log = logging.getLogger(__name__)

# Only what browsers send; some of the other decoders of Pillow start programs or are rarely looked at.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF')


class PictureError(Exception):
    """Nothing can be made of this file; the text is for the one who sent it."""


@dataclass(frozen=True)
class Rendition:
    """One of the pictures that are made: at most `size` pixels wide and high."""

    label: str
    suffix: str
    size: int
    effect: Callable[[Image.Image], Image.Image] = lambda image: image
    options: dict[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> str:
        """Name of the file."""
        return f'{name}.{self.suffix}'

    def save(self, image: Image.Image, path: Path) -> dict[str, int]:
        """Write the rendition, and answer what the page tells about it."""
        image = image.copy()
        image.thumbnail((self.size, self.size), Image.Resampling.LANCZOS)
        image = self.effect(image)
        if self.suffix == 'jpg' and image.mode == 'RGBA':
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
        draft = path.with_name(f'new-{path.name}')
        image.save(draft, **self.options)
        draft.replace(path)
        return {'width': image.width, 'height': image.height, 'bytes': path.stat().st_size}


def _gray(image: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(ImageOps.grayscale(image))


def _poster(image: Image.Image) -> Image.Image:
    smooth = image.convert('RGB').filter(ImageFilter.ModeFilter(5))
    return smooth.quantize(8, kmeans=3, dither=Image.Dither.NONE)


RENDITIONS = {
    'thumbnail': Rendition('Thumbnail', 'webp', 160, options={'quality': 80}),
    'medium': Rendition('Medium', 'jpg', 800, options={'quality': 85, 'progressive': True}),
    'gray': Rendition('Grayscale', 'jpg', 800, _gray, {'quality': 85}),
    'poster': Rendition('Poster', 'png', 800, _poster, {'optimize': True}),
    'large': Rendition('Large', 'png', 1600),
}


def open_picture(path: Path, max_pixels: int) -> Image.Image:
    """Decode an uploaded file; its content decides what it is, not its name."""
    try:
        image = _decode(path, max_pixels)
    except UnidentifiedImageError:
        raise PictureError('This file is not a JPEG, PNG, WebP or GIF picture.') from None
    except Image.DecompressionBombError:
        raise PictureError('This picture has too many pixels.') from None
    except Exception as error:  # the decoders raise whatever a damaged file makes them stumble over
        log.info('Cannot decode %s: %r', path, error)
        raise PictureError('This picture is damaged or incomplete.') from None
    image.info.clear()  # no place or camera of the original in what is shown
    return image


def _decode(path: Path, max_pixels: int) -> Image.Image:
    with Image.open(path, formats=FORMATS) as original:
        if original.width * original.height > max_pixels:
            raise Image.DecompressionBombError
        upright = ImageOps.exif_transpose(original)
        return upright.convert('RGBA' if upright.has_transparency_data else 'RGB')
