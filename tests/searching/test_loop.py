"""Rounds: who is asked, who is scored again, what the strategy is told, and exact replay."""

from dataclasses import replace
from itertools import groupby, pairwise

import pytest
import tiny

from slimsearch.api import assembly, inputs
from slimsearch.errors import RunError
from slimsearch.record import history, run
from slimsearch.searching.density import neighbour_density
from slimsearch.searching.loop import play
from slimsearch.searching.watch import Watch


def rounds_of(folder):
    return list(history.read(folder).rounds.values())


class Counting(Watch):
    """Counts steps against what each stage announced."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, list[int]] = {}
        self.open: list[str] = []
        self.scores = []

    def begin(self, name: str, steps: int) -> None:
        self.open.append(name)
        self.steps.setdefault(name, [0, 0])[0] += steps

    def advance(self) -> None:
        self.steps[self.open[-1]][1] += 1

    def scored(self, score) -> None:
        self.advance()
        self.scores.append(score)

    def end(self, name: str) -> None:
        self.open.pop()


class Listening:
    """A strategy that notes what it is told."""

    def __init__(self, inner):
        self.inner, self.told, self.allocations = inner, [], inner.allocations
        self.weighs_terms, self.looks_ahead = inner.weighs_terms, inner.looks_ahead
        self.turns = []

    def start(self, hints):
        self.inner.start(hints)

    def turn(self, outlook):
        self.turns.append(outlook)
        self.inner.turn(outlook)

    def ask(self):
        return self.inner.ask()

    def tell(self, scores):
        self.told.append([(score.genes, score.total) for score in scores])
        self.inner.tell(scores)

    @property
    def survivors(self):
        return self.inner.survivors


@pytest.fixture
def play_in(small):
    """Plays a small search in a folder; gives what it led to and who saw it."""

    def played(folder, **changes):
        given = inputs.gather(replace(small, policy="per_matrix", **changes))
        watch = Counting()
        bench = assembly.load(given, Watch())
        loop = replace(bench.loop, strategy=Listening(bench.loop.strategy))
        opened = run.reopen(folder) if folder.exists() else run.create(folder, small, {})
        with opened:
            position = play(loop, opened, watch)
        return loop, position, watch

    return played


@pytest.fixture
def played(play_in, tmp_path):
    return (*play_in(tmp_path / "run", rounds=3), tmp_path / "run")


def test_the_strategy_is_told_what_the_journal_holds(played):
    loop, _, _, folder = played
    rounds = rounds_of(folder)
    assert [done.index for done in rounds] == [1, 2, 3]
    for done, told in zip(rounds, loop.strategy.told, strict=True):
        assert told == [(score.genes, score.total) for score in done.scores]
        assert len({genes for genes, _ in told}) == len(told)


def test_every_score_of_a_round_is_under_the_projector_the_round_began_with(played):
    rounds = rounds_of(played[3])
    before = 0
    for done in rounds:
        assert {score.projector for score in done.scores} == {before}
        assert done.projector == (done.index if done.step.kept else before)
        before = done.projector
    assert played[1].projector == before
    assert before > 0, "no projector step was kept, so nothing is tested"


def test_survivors_keep_their_names_and_their_text_loss(played):
    rounds = rounds_of(played[3])
    first = {score.candidate: score for score in rounds[0].scores}
    again = [score for score in rounds[1].scores if score.candidate in first]
    assert again
    for score in again:
        old = first[score.candidate]
        assert score.genes == old.genes
        if score.share != old.share:
            continue
        assert score.terms["text_loss"] == old.terms["text_loss"]
        assert score.terms["answer_loss"] != old.terms["answer_loss"]


def test_an_outlook_is_taken_from_each_new_champion(played):
    loop, rounds = played[0], rounds_of(played[3])
    (hints,) = (record for record in tiny.records(played[3]) if record["kind"] == "hints")
    first = tuple(hints["allocations"]["optimal"])
    champions = [first, *(done.champion.genes for done in rounds[:-1])]
    new = [genes for genes, _ in groupby(champions)]
    assert [told.genes for told in loop.strategy.turns] == new
    for told in loop.strategy.turns:
        assert [len(some) for some in told.along] == [len(g.choices) for g in loop.space.genes]
        assert {some[now] for some, now in zip(told.along, told.genes, strict=True)} == {0.0}


def test_where_gradients_take_too_much_memory_the_search_goes_on_without(
    play_in, tmp_path, monkeypatch
):
    monkeypatch.setattr("slimsearch.footprint.free_bytes", lambda device: 1000)
    loop, _, _ = play_in(tmp_path / "run", rounds=2)
    assert loop.strategy.turns
    assert not any(told.along for told in loop.strategy.turns)
    assert len(rounds_of(tmp_path / "run")) == 2


def test_weights_are_the_neighbour_density_of_the_rounds_candidates(played):
    loop = played[0]
    for done in rounds_of(played[3]):
        points = [loop.space.values(score.genes) for score in done.scores if score.ok]
        assert done.weights == pytest.approx(neighbour_density(points, 5))
        assert done.champion == min(done.scores, key=lambda score: score.total)


def test_no_round_crowns_worse_than_the_one_before_while_the_projector_stays(play_in, tmp_path):
    """A survivor that is known on everything is not dropped for what it scores on a part."""
    play_in(tmp_path / "run", rounds=6, patience=0, projector_steps=0)
    totals = [done.champion.total for done in rounds_of(tmp_path / "run")]
    assert totals == sorted(totals, reverse=True)


def test_names_say_the_round_and_the_place(played):
    for done in rounds_of(played[3]):
        new = [s.candidate for s in done.scores if s.candidate.startswith(f"{done.index}-")]
        assert new
        assert new == [f"{done.index}-{n:02d}" for n in range(1, len(new) + 1)]


def test_a_replay_scores_nothing_and_ends_in_the_same_place(played, play_in):
    loop, position, _, folder = played
    before = (folder / "journal.jsonl").read_bytes()
    again, there, watch = play_in(folder, rounds=3)
    assert watch.scores == []
    assert (folder / "journal.jsonl").read_bytes() == before
    assert there == position
    assert again.strategy.told == loop.strategy.told
    assert again.strategy.turns == loop.strategy.turns
    assert again.trainer.version == loop.trainer.version
    one, two = loop.trainer.state(), again.trainer.state()
    assert set(one) == set(two)
    assert all(bool((one[key] == two[key]).all()) for key in one)


def test_steps_taken_are_steps_announced(played):
    """Else the progress bar runs past its end, or never gets there."""
    steps = played[2].steps
    assert steps["level store"][1] == steps["level store"][0]
    assert steps["search"][1] >= 0.5 * steps["search"][0]


def test_a_journal_of_another_search_is_refused(play_in, tmp_path):
    folder = tmp_path / "run"
    play_in(folder, rounds=2, strategy="random")
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:5]))
    with pytest.raises(RunError, match="belong to different searches"):
        play_in(folder, rounds=2, strategy="random", seed=5)


def test_without_projector_steps_nothing_is_scored_twice(play_in, tmp_path):
    play_in(tmp_path / "run", rounds=3, projector_steps=0)
    records = [r for r in tiny.records(tmp_path / "run") if r["kind"] == "score"]
    scored = [(record["candidate"], record["share"]) for record in records]
    assert len(scored) == len(set(scored))


def test_a_strategy_with_nothing_left_ends_the_search(play_in, tmp_path):
    play_in(tmp_path / "run", rounds=5, strategy="uniform")
    assert len(rounds_of(tmp_path / "run")) == 1


def idle(rounds):
    """How many rounds in a row, up to the last one, lowered the best score by less than 1%."""
    totals = [done.champion.total for done in rounds]
    idle = [now > 0.99 * before for before, now in pairwise(totals)]
    return len(idle) - max((place for place, one in enumerate(idle, 1) if not one), default=0)


@pytest.mark.parametrize("patience", [1, 2])
def test_a_search_ends_once_rounds_bring_nothing_better(play_in, tmp_path, patience):
    folder = tmp_path / "run"
    play_in(folder, rounds=30, patience=patience, survivors=2)
    found = rounds_of(folder)
    assert len(found) < 30
    assert idle(found) == patience
    assert all(idle(found[:end]) < patience for end in range(1, len(found)))
    before = (folder / "journal.jsonl").read_bytes()
    _, _, watch = play_in(folder, rounds=30, patience=patience, survivors=2)
    assert watch.scores == []
    assert (folder / "journal.jsonl").read_bytes() == before


def test_without_patience_every_round_is_played(play_in, tmp_path):
    play_in(tmp_path / "run", rounds=8, patience=0, survivors=2)
    found = rounds_of(tmp_path / "run")
    assert len(found) == 8
    assert any(idle(found[:end]) for end in range(1, 9)), "no round was idle: nothing tested"


def test_a_front_is_searched_for_to_the_end(play_in, tmp_path):
    play_in(
        tmp_path / "run", rounds=6, patience=1, strategy="pareto",
        objective="text_loss + answer_loss",
    )  # fmt: skip
    found = rounds_of(tmp_path / "run")
    assert len(found) == 6
    assert any(idle(found[:end]) for end in range(1, 6)), "no round was idle: nothing tested"
