"""One run, told section by section; what is not at hand is said, never filled in."""

from __future__ import annotations

from dataclasses import replace

from slimsearch.record import history
from slimsearch.reporting import answers, beside, cost, quality, search
from slimsearch.reporting.markup import Chapter, Figure, Gallery, Html, Piece, tag
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import FIGURES, count, duration, figure, listed

WORDS = (
    ("policy", "how much is removed from each part of the model"),
    ("candidate", "a policy on trial: 7-03 is the third one proposed in round 7"),
    ("score", "what the search lowers, measured on calibration data; its terms are weighed and "
              "added up"),
    ("uniform", "the same share removed everywhere, by the same solver: what a search has to beat"),
    ("champion", "the candidate that won, and the model that was pruned by it"),
    ("calibration", "the text and pictures that choose what goes; nothing in a table of results "
                    "was among them"),
    ("stitched", "put together from matrices that were each pruned once at every level; the best "
                 "few are pruned again exactly"),
)  # fmt: skip


def chapter(story: Story, prefix: str) -> Chapter:
    """The whole run; anchors and figures begin with `prefix`."""
    parts = [
        beside.beside(story),
        quality.found(story),
        *quality.evaluations(story),
        quality.speed(story),
        search.rounds(story),
        search.weights(story),
        search.terms(story),
        search.front(story),
        search.exactness(story),
        search.space(story),
        answers.samples(story),
        search.failures(story),
        cost.cost(story),
        cost.again(story),
    ]
    body = tuple(_named(part, prefix) for part in parts if part is not None)
    return Chapter(f"{prefix}run", story.name, (*lead(story), *body))


def lead(story: Story) -> list[Html]:
    """What was searched and found, for someone who was not there."""
    found = [tag("p", _searched(story), " ", _found(story), class_="lead")]
    if story.history.end is None:
        state = history.summary(story.history, story.settings.rounds)
        found.append(tag("p", f"This run is {state} What follows is as far as it came.",
                         class_="warning"))  # fmt: skip
    if story.history.drift:
        changed = listed(story.history.drift)
        found.append(tag("p", f"The run was gone on with under other conditions: {changed}.",
                         class_="warning"))  # fmt: skip
    return [*found, _tiles(story)]


def glossary() -> Html:
    pairs = [tag("div", tag("dt", word), tag("dd", meaning)) for word, meaning in WORDS]
    return tag("dl", *pairs, class_="words")


def _searched(story: Story) -> str:
    chosen, scope = story.settings, story.scope
    matrices = story.sparsities or {name: 0.0 for name, _, _ in scope.get("matrices", ())}
    parts = f"{len(matrices)} attention and MLP matrices" if matrices else "attention and MLP"
    if scope:
        prunable = sum(rows * columns for _, rows, columns in scope["matrices"])
        share = prunable / scope["parameters"]
        parts += f", {share:.0%} of its {count(scope['parameters'])} parameters"
    tried = len({score.genes for score in story.history.scores.values()})
    rounds = len(story.history.rounds)
    return (
        f"The goal was to remove {chosen.ratio:.0%} of the weights in the decoder of "
        f"{story.model} ({parts}) and to keep what it can do. The search tried "
        f"{tried} polic{'y' if tried == 1 else 'ies'} in {rounds} round{'s' * (rounds != 1)}."
    )


def _found(story: Story) -> str:
    dense, best, even = story.dense, story.searched, story.uniform
    if dense is None or best is None:
        return "It has not crowned a champion yet."
    said = []
    for key, (name, _) in FIGURES.items():
        if key in best.figures and key != "answer_loss":
            beside = [f"dense {figure(key, dense.figures.get(key))}"]
            beside += [f"uniform {figure(key, even.figures.get(key))}"] if even else []
            said.append(f"{name} {figure(key, best.figures[key])} ({', '.join(beside)})")
    measured = f"On data it was not calibrated on, the pruned model has {listed(said)}."
    return f"{measured} {_won_back(story)}".strip()


def _won_back(story: Story) -> str:
    """How much of what uniform pruning loses the search saves."""
    dense, best, even = story.dense, story.searched, story.uniform
    if dense is None or best is None or even is None:
        return ""
    said = []
    for key, (name, _) in FIGURES.items():
        if not all(key in row.figures for row in (dense, best, even)):
            continue
        gap = even.figures[key] - dense.figures[key]
        saved = even.figures[key] - best.figures[key]
        if gap and (gap > 0) != FIGURES[key][1]:  # uniform pruning loses something
            said.append(_share(saved / gap, name))
    return f"Of what uniform pruning loses, the search wins back {listed(said)}." if said else ""


def _share(share: float, name: str) -> str:
    if share > 1:
        return f"all and more in {name}"
    return f"{share:.0%} in {name}" if share >= 0 else (
        f"nothing in {name}, where it loses {-share:.0%} more"
    )  # fmt: skip


def _tiles(story: Story) -> Html:
    """The few numbers to remember."""
    best, dense = story.searched, story.dense
    found = [(f"{best.sparsity:.1%}", "of the prunable weights are zero")] if best else []
    for key, (name, _) in FIGURES.items():
        if best and dense and key in best.figures and key != "answer_loss":
            was = figure(key, dense.figures.get(key))
            found.append((figure(key, best.figures[key]), f"{name}; dense {was}"))
    spent = sum(story.times["stage"].values())
    if spent:
        found.append((duration(spent), "for the whole run"))
    tiles = [tag("div", tag("b", number), tag("span", about)) for number, about in found]
    return tag("div", *tiles, class_="tiles")


def _named(part: Chapter, prefix: str) -> Chapter:
    """A chapter whose anchors and figures begin with a prefix."""

    def named(piece: Piece) -> Piece:
        if isinstance(piece, Figure):
            return replace(piece, name=prefix + piece.name)
        if isinstance(piece, Gallery):
            figures = tuple(replace(one, name=prefix + one.name) for one in piece.figures)
            return replace(piece, figures=figures)
        return piece

    return Chapter(prefix + part.anchor, part.title, tuple(map(named, part.body)))
