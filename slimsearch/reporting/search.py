"""How the search went, section by section."""

from __future__ import annotations

from slimsearch.reporting import findings, searching
from slimsearch.reporting.markup import (
    Chapter,
    Figure,
    Gallery,
    Html,
    Piece,
    join,
    missing,
    paragraph,
    table,
)
from slimsearch.reporting.story import Story
from slimsearch.reporting.words import listed, part, spelt
from slimsearch.searching import ranks
from slimsearch.settings import strategy_of

MOST_FAILURES = 40
AGREED = 0.5  # a rank correlation from which an order counts as much the same


def rounds(story: Story) -> Chapter:
    """Convergence, and what became of the projector."""
    done = list(story.history.rounds.values())
    if not done:
        return Chapter("rounds", "How the search went", (missing("No round was closed yet."),))
    first, last = done[0].champion, done[-1].champion
    caption = (
        f"Each dot is a candidate, put on the model and scored on calibration data. The best of a "
        f"round went from {first.total:.4f} ({first.candidate}) to {last.total:.4f} "
        f"({last.candidate}).{_rising(story)} Candidates race: hollow dots were measured on a part "
        f"of the data, dropped out, and stand where they were behind the round's best. Triangles "
        f"lie beyond the upper rim."
    )
    about = (
        f"Candidates were proposed by the strategy “{strategy_of(story.settings)}”, "
        f"{story.settings.candidates} a round; the best "
        f"{story.settings.survivors} lived on. {_projector(story)}"
    )
    figure = Figure("rounds", searching.convergence(story), join(caption))
    return Chapter("rounds", "How the search went", (paragraph(about), figure))


def _rising(story: Story) -> str:
    """Why a score that is lowered may rise."""
    if not any(done.step and done.step.kept for done in story.history.rounds.values()):
        return ""
    return (
        " Where the projector has moved, survivors are scored again under it, so the line may rise."
    )


def _projector(story: Story) -> str:
    steps = {index: done.step for index, done in story.history.rounds.items() if done.step}
    if not steps:
        return "The vision projector was left as it is."
    moved = [str(index) for index, step in steps.items() if step.kept]
    said = f"After round {listed(moved)} the projector moved" if moved else "The projector stayed"
    others = len(steps) - len(moved)
    if others:
        said += f"; {others} steps did not help on held-back pairs and were taken back"
    polished = story.history.polished
    if polished is not None:
        last = "was kept" if polished.kept else "was taken back"
        said += f". A last, longer step for the champion alone {last}"
    return f"{said}."


def weights(story: Story) -> Chapter:
    """Where the champion's zeros are, beside what each part is worth."""
    title = "Where the weights went"
    drawn = findings.weights(story)
    if drawn is None:
        return Chapter("weights", title, (missing("There is no champion yet."),))
    found = story.sparsities
    least, most = min(found, key=lambda name: found[name]), max(found, key=lambda name: found[name])
    about = (
        f"Rows are decoder blocks from the input down, columns their matrices. The champion takes "
        f"least from {part(least)} ({found[least]:.0%} zero) and most from {part(most)} "
        f"({found[most]:.0%})."
    )
    body: list[Piece] = [paragraph(about)]
    for family, choices in story.policy.items():
        if family != "layer_sparsity":
            rows = [
                [key, value if isinstance(value, str) else f"{value:g}"]
                for key, value in choices.items()
            ]
            body.append(table((spelt(family), "value"), rows))
    caption = "Blue: zeros in every matrix and block, counted on the model that was written."
    figures = [Figure("weights", drawn, Html())]
    if (costs := findings.sensitivities(story)) is not None:
        figures.append(Figure("sensitivity", costs, Html()))
    body.append(Gallery(tuple(figures), join(f"{caption} {_sensitivity(story)}")))
    return Chapter("weights", title, tuple(body))


def _sensitivity(story: Story) -> str:
    costs = story.sensitivity
    if not costs:
        return (
            "How sensitive each part is, this run did not predict: only strategies that begin with "
            "the rule “optimal” do, such as the default, and not with --exact."
        )
    chosen = story.policy.get("layer_sparsity", {})
    both = [(cost, float(chosen[key])) for key, cost in costs.items() if key in chosen]
    agreed = ranks.correlation([cost for cost, _ in both], [level for _, level in both])
    said = (
        f"Orange: what pruning that part to {story.settings.ratio:g} is predicted to add to the "
        f"loss, from one backward pass before the search, in shares of the sum over all parts."
    )
    if agreed is None:
        return said
    meaning = (
        "what matters more was pruned less" if agreed < -AGREED
        else "what matters more was pruned more" if agreed > AGREED
        else "the search found more than the prediction knew"
    )  # fmt: skip
    return f"{said} Sparsity and sensitivity have a rank correlation of {agreed:.2f}: {meaning}."


def terms(story: Story) -> Chapter:
    """What each term of the score says, and how they pull against each other."""
    title = "Term by term"
    scores, champion = list(story.scored.values()), story.champion
    if not scores or champion is None:
        return Chapter("terms", title, (missing("No candidate was measured on everything yet."),))
    totals = [score.total for score in scores]
    rows = []
    for name in champion.terms:
        values = [score.terms[name] for score in scores]
        weight = story.scope.get("terms", {}).get(name)
        agreed = ranks.correlation(values, totals)
        rows.append([
            spelt(name), "not kept" if weight is None else f"{weight:g}",
            f"{champion.terms[name]:.4f}", f"{min(values):.4f}", f"{max(values):.4f}",
            "-" if agreed is None else f"{agreed:.2f}",
        ])  # fmt: skip
    columns = ("term", "weight", "champion", "least", "most", "rank correlation with the score")
    about = paragraph(
        f"The score adds up these terms, each times its weight; lower is better. Least and most "
        f"are over the {len(scores)} candidates that were measured on all of the calibration. A "
        f"term whose order is that of the score decides the search; one near 0 ranks nothing."
    )
    drawn = searching.terms(story)
    figures = tuple(
        Figure(f"terms-{number}", scene, Html()) for number, scene in enumerate(drawn, 1)
    )
    caption = (
        "Each dot is a candidate as stitched, measured on all of the calibration; down and left is "
        "better. The filled diamond is the champion pruned exactly, the hollow one the same as "
        "stitched. Triangles lie beyond the upper rim."
    )
    gallery = [Gallery(figures, join(caption))] if figures else []
    return Chapter("terms", title, (about, table(columns, rows), *gallery))


def front(story: Story) -> Chapter | None:
    """The Pareto front of a strategy that weighs terms against each other."""
    if not story.front:
        return None
    crowned = next((row["candidate"] for row in story.front if row["crowned"]), "none")
    about = paragraph(
        f"No term was traded for another: these {len(story.front)} candidates are beaten by none "
        f"in all terms at once. Crowned was {crowned} (--pick {story.settings.pick}); each policy "
        f"stands in the run's folder front/."
    )
    columns = ("candidate", *(spelt(name) for name in story.front[0]["terms"]), "zeros")
    rows = [
        [row["candidate"], *(f"{value:.4g}" for value in row["terms"].values()),
         f"{row['sparsity']:.1%}"]
        for row in story.front
    ]  # fmt: skip
    strong = [place for place, row in enumerate(story.front) if row["crowned"]]
    figures = tuple(
        Figure(f"front-{number}", scene, Html())
        for number, scene in enumerate(searching.front(story), 1)
    )
    gallery = Gallery(figures, join("The front as stitched: each dot is a model to be had."))
    return Chapter("front", "The Pareto front", (about, table(columns, rows, strong), gallery))


def exactness(story: Story) -> Chapter:
    """Whether stitched models rank candidates as exact pruning does."""
    title = "Stitched against exact"
    if story.settings.exact:
        said = "Every candidate was pruned exactly (--exact): nothing was stitched."
        return Chapter("exact", title, (paragraph(said),))
    drawn, points = searching.stitched(story)
    if not points:
        said = "No finalist was pruned exactly, so stitched scores are held against nothing."
        return Chapter("exact", title, (missing(said),))
    agreed = ranks.correlation([x for x, _ in points], [y for _, y in points])
    gap = sum(x - y for x, y in points) / len(points)
    better = "lower (better)" if gap > 0 else "higher (worse)"
    said = (
        f"The search scores candidates stitched from matrices that were pruned one by one; its "
        f"best {len(points)} were then pruned exactly, block after block. On average the exact "
        f"score is {abs(gap):.4f} {better}. "
    )
    said += (
        f"Their rank correlation is {agreed:.2f}, over {len(points)} points: no more than a hint."
        if agreed is not None
        else "Too few points to say whether both order them alike."
    )
    caption = "A rising line of dots means that stitching orders candidates as exact pruning does."
    figure = Figure("exact", drawn, join(caption))
    return Chapter("exact", title, (paragraph(said), figure))


def space(story: Story) -> Chapter:
    """Neighbour density, in the plane where policy space is widest."""
    title = "Where the search looked"
    if not story.history.rounds:
        return Chapter("space", title, (missing("No round was closed yet."),))
    if not story.genes:
        said = "What the genes stand for, this run did not keep: an earlier release made it."
        return Chapter("space", title, (missing(said),))
    drawn, found = searching.neighbourhood(story)
    about = paragraph(
        "Every policy is a point with a coordinate for each part that it decides over, "
        f"{len(story.genes)} here. Where candidates crowd, the search converges; so those with "
        f"near neighbours weigh more when the projector is trained (SlimLLaVA's c_m, over the "
        f"{story.settings.neighbours} nearest)."
    )
    caption = (
        f"All candidates in the plane of their two principal axes, which keeps {found.kept:.0%} of "
        f"their spread. Near dots are alike policies. Size is the neighbour-density weight against "
        f"an even one."
    )
    return Chapter("space", title, (about, Figure("space", drawn, join(caption))))


def failures(story: Story) -> Chapter:
    """Candidates that could not be scored, each with its reason."""
    title = "Failed candidates"
    exact = [score for score in story.history.exact.values() if not score.ok]
    lost = (*story.history.failures, *exact, *story.history.given_up)
    failed = {score.candidate: score.failure for score in lost}
    if not failed:
        said = f"None of the {story.history.scored} candidates failed."
        return Chapter("failed", title, (paragraph(said),))
    said = (
        f"{len(failed)} of {story.history.scored} candidates could not be scored; the others are "
    )
    said += "not touched by that."
    if given_up := story.history.given_up:
        said = (
            f"The search stopped because all of the {len(given_up)} that it scored last failed; "
            f"resumed, it scores them again."
        )
    rows = [[name, reason] for name, reason in list(failed.items())[-MOST_FAILURES:]]
    return Chapter("failed", title, (paragraph(said), table(("candidate", "why"), rows)))
