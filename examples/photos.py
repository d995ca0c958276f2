"""The photographs and scans inside scikit-image and scikit-learn, and what they show.

Captions, questions and answers were written for this project while looking at each picture.
Origins and licences are those that the two packages state for each file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

DESCRIBE = "Describe the picture in one sentence."


@dataclass(frozen=True)
class Photo:
    """One picture: its file inside `package`, its origin, a caption, questions with answers."""

    package: str
    file: str
    origin: str
    caption: str
    turns: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return Path(self.file).stem

    def path(self) -> Path:
        """Where the installed package keeps the file; the package is not imported."""
        return package_folder(self.package) / self.file


def package_folder(package: str) -> Path:
    """The folder of an installed package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {package!r} is not installed; run make setup")
    return Path(spec.submodule_search_locations[0])


def _skimage(file: str, origin: str, caption: str, *turns: tuple[str, str]) -> Photo:
    return Photo("skimage", f"data/{file}", origin, caption, turns)


def _sklearn(file: str, origin: str, caption: str, *turns: tuple[str, str]) -> Photo:
    return Photo("sklearn", f"datasets/images/{file}", origin, caption, turns)


PHOTOS = (
    _skimage(
        "astronaut.png",
        "NASA, public domain",
        "A smiling astronaut in an orange suit poses with her helmet before a flag and a model of "
        "a space shuttle.",
        ("What colour is the suit?", "orange"),
        ("What stands in the background on the right?", "a model of a space shuttle"),
        ("What hangs on the left side?", "a flag"),
        ("Is the person smiling?", "yes"),
    ),
    _skimage(
        "brick.png",
        "CC0Textures, CC0",
        "A grey pavement of long bricks with light joints between them.",
        ("What is the surface made of?", "bricks"),
        ("Are the joints lighter than the bricks?", "yes"),
    ),
    _skimage(
        "camera.png",
        "Lav Varshney, CC0",
        "A man in a dark coat looks through a camera on a tripod on a lawn, in black and white.",
        ("What does the camera stand on?", "a tripod"),
        ("Is the photograph in colour?", "no"),
        ("What is the man doing?", "looking through a camera"),
        ("Which way does the man face?", "to the right"),
    ),
    _skimage(
        "cell.png",
        "scikit-image, CC0",
        "One bright round cell lies on a dark grey background.",
        ("What shape is the bright object?", "round"),
        ("How many bright objects are there?", "1"),
        ("Is the bright object on the left or on the right?", "right"),
    ),
    _skimage(
        "chelsea.png",
        "Stefan van der Walt, CC0",
        "The face of a ginger tabby cat with green eyes, seen from close up.",
        ("What animal is this?", "a cat"),
        ("What colour are its eyes?", "green"),
        ("Does the animal have whiskers?", "yes"),
    ),
    _skimage(
        "coffee.png",
        "Rachel Michetti, CC0",
        "A red cup of espresso stands on a red saucer with a spoon, on a wooden table.",
        ("What is in the cup?", "coffee"),
        ("What colour is the saucer?", "red"),
        ("What is the table made of?", "wood"),
        ("What lies on the saucer beside the cup?", "a spoon"),
    ),
    _skimage(
        "coins.png",
        "Brooklyn Museum, no known copyright restrictions",
        "Four rows of six old coins lie on a dark background.",
        ("How many rows of coins are there?", "4"),
        ("How many coins are in each row?", "6"),
        ("What objects are these?", "coins"),
    ),
    _skimage(
        "grass.png",
        "DeviantArt (linolafett), CC0",
        "Blades of grass and some broad leaves cover the ground, in grey tones.",
        ("What covers the ground?", "grass"),
        ("Is any sky visible?", "no"),
    ),
    _skimage(
        "gravel.png",
        "CC0Textures, CC0",
        "Many small grey stones cover the whole picture.",
        ("What covers the picture?", "gravel"),
        ("Are the stones small or large?", "small"),
    ),
    _skimage(
        "hubble_deep_field.jpg",
        "NASA, public domain",
        "Hundreds of small bright galaxies are scattered over a black sky.",
        ("What colour is the background?", "black"),
        ("What are the bright spots?", "galaxies and stars"),
        ("Was the picture taken by day?", "no"),
    ),
    _skimage(
        "ihc.png",
        "CMMI, no known copyright restrictions",
        "A microscope picture of tissue: brown stained glands with blue cell nuclei between them.",
        ("What colour are the glands stained?", "brown"),
        ("What colour are the nuclei between them?", "blue"),
        ("With what instrument was this taken?", "a microscope"),
    ),
    _skimage(
        "moon.png",
        "scikit-image, not stated",
        "A grey, low-contrast view of the surface of the moon with craters of several sizes.",
        ("What does the picture show?", "the surface of the moon"),
        ("In which corner lies the largest bright crater?", "top left"),
    ),
    _skimage(
        "motorcycle_left.png",
        "Middlebury stereo benchmark 2014 (D. Scharstein), CC0",
        "A red motorcycle stands on its kickstand in a garage in front of a shelf full of things.",
        ("What vehicle is this?", "a motorcycle"),
        ("What colour is its tank?", "red"),
        ("What stands behind the vehicle on the right?", "a shelf"),
    ),
    _skimage(
        "motorcycle_right.png",
        "Middlebury stereo benchmark 2014 (D. Scharstein), CC0",
        "In a garage with a wooden bench, a red motorcycle points its front wheel to the right.",
        ("How many wheels does the vehicle have?", "2"),
        ("Is anybody riding it?", "no"),
        ("To which side does the front wheel point?", "right"),
    ),
    _skimage(
        "page.png",
        "scikit-image, not stated",
        "A printed page whose heading reads Region-based segmentation, lit unevenly.",
        ("What does the heading say?", "Region-based segmentation"),
        ("Which objects does the first sentence speak of?", "coins"),
    ),
    _skimage(
        "retina.jpg",
        "Wikimedia Commons, CC0",
        "The back of a human eye: an orange-red disc crossed by branching blood vessels.",
        ("What shape does the view have?", "round"),
        ("On which side is the bright spot where the vessels meet?", "left"),
        ("What are the dark red lines?", "blood vessels"),
    ),
    _skimage(
        "rocket.jpg",
        "SpaceX, public domain",
        "A white rocket stands upright on its launch pad at dusk between lattice towers.",
        ("What stands in the middle?", "a rocket"),
        ("Is the rocket flying?", "no"),
        ("What colour is the sky?", "dark blue"),
    ),
    _skimage(
        "text.png",
        "Wikimedia Commons, public domain",
        "Handwritten formulas on lined paper, seen at a slant.",
        ("Is the writing printed or handwritten?", "handwritten"),
        ("What is written on the paper?", "formulas"),
    ),
    _sklearn(
        "china.jpg",
        "danielbuechele on flickr, CC-BY-2.0",
        "A Chinese tower with several curved roofs stands among trees above a wide lake.",
        ("What building is this?", "a Chinese tower"),
        ("What lies behind the building?", "a lake"),
        ("What stands at the foot of the building?", "trees"),
    ),
    _sklearn(
        "flower.jpg",
        "vultilion on flickr, CC-BY-2.0",
        "An orange dahlia in full bloom stands out against dark green leaves.",
        ("What kind of plant is in focus?", "a flower"),
        ("What colour are its petals?", "orange"),
        ("Is the background sharp?", "no"),
    ),
)
