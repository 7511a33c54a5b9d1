"""Colours by what they are for, on light and on dark paper.

The series keep apart for every kind of colour blindness (they follow Okabe and Ito's set), and
each has a shape of its own beside its colour.
"""

COLOURS = {  # name -> on light paper, on dark paper
    "paper": ("#fdfdfb", "#17191d"),
    "ink": ("#1f2328", "#e7e7e4"),
    "soft": ("#5c636d", "#a7adb6"),
    "line": ("#dcddda", "#353a41"),
    "blue": ("#0067a5", "#62b5ea"),
    "orange": ("#c24f08", "#f29455"),
    "green": ("#00775a", "#42c49c"),
    "purple": ("#8a4f9e", "#cb9fda"),
    "rose": ("#b0355c", "#ee86a7"),
    "grey": ("#747a83", "#99a0a9"),
}
SERIES = ("blue", "orange", "green", "purple", "rose", "grey")
SHAPES = ("circle", "square", "diamond", "triangle", "cross", "circle")


def rules() -> str:
    """Style rules that colour by class on light paper, and on a dark screen."""
    light, dark = (
        "".join(
            f".f-{name}{{fill:{pair[place]}}}.s-{name}{{stroke:{pair[place]}}}"
            for name, pair in COLOURS.items()
        )
        for place in (0, 1)
    )
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}"
