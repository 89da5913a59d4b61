"""Labelled images: a folder whose subfolders are the classes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.digest import digest
from ...common.errors import UserError
from .classes import alike
from .rows import Rows

if TYPE_CHECKING:
    from PIL.Image import Image

STEREO = "MPO"  # a camera's JPEG whose further frames are previews and other views of the first
SIXTEEN = "I;16"  # what Pillow's modes of 16 bits begin with; before 10.3 it opened such PNG files as I, and PGM still
ALPHA = ("RGBA", "RGBa", "LA", "PA")
SIXTEEN_AS_I = ("PNG", "PPM")


@dataclass(frozen=True)
class Pictures(Rows):
    """Paths of images with their classes."""

    paths: list[str]
    labels: list[str]

    def strata(self) -> list[str]:
        """The labels."""
        return self.labels

    def digest(self) -> str:
        """16 hex digits over the files' names, contents and labels."""
        contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.paths]
        names = [os.path.relpath(path, self.source) for path in self.paths]
        return digest({"names": names, "contents": contents, "labels": self.labels})


def read_pictures(folder: str | Path) -> Pictures:
    """The images in a folder's subfolders, whose names are the labels; hidden files are left out.

    Raises:
        UserError: no such folder, no subfolder, one without images or with a folder in it, a file that is no image, or
            one whose samples have no known black and white.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: expected one with a subfolder of images for each class")
    if find_spec("PIL") is None:
        raise UserError('images need pillow, which is not installed: pip install "adapter_fast[vision]"')
    classes = [path for path in _seen(folder) if path.is_dir()]
    if not classes:
        raise UserError(f"{folder} is empty: expected a subfolder of images for each class")
    paths, labels, notices = [], [], _outside(folder)
    for subfolder in classes:
        files = _seen(subfolder)
        if not files:
            raise UserError(f"{subfolder} is empty: expected the images of the class {subfolder.name!r}")
        deeper = next((path for path in files if path.is_dir()), None)
        if deeper is not None:
            raise UserError(f"{deeper} is a folder in the class {subfolder.name!r}: expected images alone")
        paths += files
        labels += [subfolder.name] * len(files)
    found: dict[str, list[Path]] = {}
    for path in paths:
        for said in _verify(path):
            found.setdefault(said, []).append(path)
    for said, where in found.items():
        notices.append(f"{where[0]}{f' and {len(where) - 1:,} more' if len(where) > 1 else ''}: {said}")
    pairs = alike(subfolder.name for subfolder in classes)
    notices += [
        f"{folder}: the folders {one!r} and {other!r} look alike: taken for two classes" for one, other in pairs[:1]
    ]
    return Pictures(str(folder), [str(path) for path in paths], labels, notices=tuple(notices))


def _seen(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _outside(folder: Path) -> list[str]:
    """A note of images beside the folders of classes."""
    from PIL import Image

    known = Image.registered_extensions()
    files = [path for path in _seen(folder) if path.is_file() and path.suffix.lower() in known]
    if not files:
        return []
    more = f" and {len(files) - 1:,} more images" if len(files) > 1 else ""
    return [f"{files[0]}{more}: in no class's folder, and left out"]


def open_picture(path: str | Path) -> Image:
    """The image in 8-bit RGB, upright as its EXIF says; UserError where it does not open.

    Of 16 bits the upper 8 stay, floats are from 0, black, to 1, of several frames the first is taken, and transparent
    pixels have the colour that the file gives them.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            known = image.format in SIXTEEN_AS_I
            return _to_rgb(path, ImageOps.exif_transpose(image), known)
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        raise UserError(f"{path} does not open as an image: {type(error).__name__}") from None


def _to_rgb(path: str | Path, image: Image, sixteen_as_i: bool) -> Image:
    """The image in RGB. Pillow's own conversion cuts off all above 255: wide samples turn black and white."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith(SIXTEEN) or (image.mode == "I" and sixteen_as_i):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "F":
        pixels = np.asarray(image)
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            low, high = pixels.min(), pixels.max()
            raise UserError(f"{path} holds floats from {low:g} to {high:g}: expected 0, black, to 1, white")
        image = Image.fromarray(np.rint(255 * pixels).astype(np.uint8))
    elif image.mode == "I":
        raise UserError(f"{path} holds integers of 32 bits, of which none is known to be white: expected 8 or 16 bits")
    return image.convert("RGB")


def _verify(path: Path) -> list[str]:
    """What is assumed about the file; UserError where it is no image that can be read."""
    from PIL import Image

    notices = []
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            wide = image.mode in ("I", "F")
            Image.new(image.mode, (1, 1)).convert("RGB")  # some modes cannot be: better now than within training
            if image.format != STEREO and getattr(image, "n_frames", 1) > 1:
                notices.append("has several frames: the first is taken")
                image.seek(0)
            transparent = image.mode in ALPHA or "transparency" in image.info
            if transparent and min(image.convert("RGBA").getchannel("A").tobytes()) < 255:
                notices.append("has transparent pixels: they have the colour that the file gives them")
    except Exception as error:  # see open_picture
        raise UserError(f"{path} does not open as an image: {type(error).__name__}") from None
    if wide:
        open_picture(path)  # raises where the samples' range is not known
        if image.mode == "F":
            notices.append("holds floats: 0 is black and 1 white")
    return notices
