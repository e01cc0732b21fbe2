"""Pictures for those who have none at hand, drawn by Pillow."""

from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from .renditions import PictureError

SIZE = (2400, 1600)


def _mandelbrot() -> Image.Image:
    image = Image.effect_mandelbrot(SIZE, (-2.3, -1.1, 1.0, 1.1), 200)
    return ImageOps.colorize(ImageOps.equalize(image), '#0b1033', '#ffe9b0', '#c2417a')


def _dawn() -> Image.Image:
    sky = ImageOps.colorize(Image.linear_gradient('L'), '#1d2b64', '#ffd194', '#c06c84').resize(SIZE)
    draw = ImageDraw.Draw(sky)
    draw.ellipse((1450, 900, 1850, 1300), fill='#fff1c9')
    for ridge, colour in enumerate(('#6b4a6e', '#463656', '#231f3a')):
        top = 1150 + ridge * 130
        peaks = [(x, top - (x // 100 * (37 + 10 * ridge)) % 170) for x in range(0, SIZE[0] + 101, 100)]
        draw.polygon([(0, SIZE[1]), *peaks, SIZE], fill=colour)
    return sky


def _ripples() -> Image.Image:
    rings = Image.radial_gradient('L').point([abs(n * 12 % 512 - 256) * 255 // 256 for n in range(256)])
    rings = rings.resize(SIZE, Image.Resampling.BICUBIC)
    waves = ImageChops.blend(rings, ImageChops.offset(rings, SIZE[0] // 5, SIZE[1] // 6), 0.5)
    return ImageOps.colorize(waves, '#06283d', '#e8fff3', '#1f8a99')


def _fog() -> Image.Image:
    fog = Image.new('RGB', SIZE, '#cfd6dc')
    return Image.blend(_dawn().filter(ImageFilter.GaussianBlur(9)), fog, 0.55)


SAMPLES: dict[str, Callable[[], Image.Image]] = {
    'Mandelbrot set': _mandelbrot,
    'Dawn': _dawn,
    'Ripples': _ripples,
    'Fog': _fog,
}


def draw(name: str, attempt: int) -> Image.Image:
    """Draw a sample; fog is too thick at the first attempt, so that there is a failure to be seen."""
    if name == 'Fog' and attempt == 1:
        raise PictureError('The fog was too thick to see anything. Please try again.')
    return SAMPLES[name]()
