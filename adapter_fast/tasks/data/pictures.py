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
from .rows import Rows

if TYPE_CHECKING:
    from PIL.Image import Image


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
        UserError: no such folder, no subfolder, one without images, or a file that is no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: expected one with a subfolder of images for each class")
    if find_spec("PIL") is None:
        raise UserError('images need pillow, which is not installed: pip install "adapter_fast[vision]"')
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise UserError(f"{folder} is empty: expected a subfolder of images for each class")
    paths, labels = [], []
    for subfolder in classes:
        files = sorted(path for path in subfolder.iterdir() if path.is_file() and not path.name.startswith("."))
        if not files:
            raise UserError(f"{subfolder} is empty: expected the images of the class {subfolder.name!r}")
        paths += files
        labels += [subfolder.name] * len(files)
    for path in paths:
        _verify(path)
    return Pictures(str(folder), [str(path) for path in paths], labels)


def open_picture(path: str) -> Image:
    """The image in RGB, upright as its EXIF says; UserError where it does not open."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        raise UserError(f"{path} does not open as an image: {type(error).__name__}") from None


def _verify(path: Path) -> None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()
    except Exception as error:  # see open_picture
        raise UserError(f"{path} does not open as an image: {type(error).__name__}") from None
