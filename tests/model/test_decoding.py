"""The greedy loop, against transformers' generate and against a session that counts."""

import numpy as np
import pytest
import tiny
import torch

from slimsearch.calibration import Turn
from slimsearch.contracts import Session
from slimsearch.errors import InputError
from slimsearch.model import conversation
from slimsearch.model.decoding import Prompt, Reading, greedy, log_likelihoods
from slimsearch.model.resident import Resident

NEVER: frozenset[int] = frozenset()


class Counting(Session):
    """Says after each row how many real tokens it has read; keeps what it was given."""

    room = 20

    def __init__(self):
        self.read: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.forgot = 0

    def see(self, pixels):
        raise AssertionError("there are no pictures here")

    def embed(self, ids):
        return ids[..., None].astype(np.float32)

    def step(self, embeds, mask, positions):
        self.read.append((embeds[..., 0].astype(int), mask, positions))
        return np.eye(50, dtype=np.float32)[mask.sum(1)]

    def forget(self):
        self.forgot += 1


def test_greedy_is_generates_greedy_with_and_without_a_picture(seen):
    model, speech = seen
    shown = speech.show(tiny.picture(1))
    pixels = shown.inputs["pixel_values"]
    session = Resident(model)
    features = session.see(pixels.numpy())[0]
    ids = conversation.question_ids(speech, [Turn("Which?", None)], shown)
    (said,) = greedy(session, [Prompt(ids, features, tiny.IMAGE)], frozenset([tiny.END]), 6)
    (whole,) = greedy(session, [Prompt(ids, shown=shown.inputs)], frozenset([tiny.END]), 6)
    assert whole == said
    made = model.model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        pixel_values=pixels, max_new_tokens=6, do_sample=False,
    )  # fmt: skip
    assert said == made[0, len(ids) :].tolist()
    assert len(greedy(session, [Prompt([5, 6, 7])], NEVER, 4)[0]) == 4


def test_it_stops_at_each_rows_end(seen):
    session = Resident(seen[0])
    prompts = [Prompt([5, 6, 7]), Prompt([9, 8, 7, 6, 5])]
    free = greedy(session, prompts, NEVER, 6)
    ends = frozenset([free[0][2]])
    for row, all_said in zip(greedy(session, prompts, ends, 6), free, strict=True):
        stop = next((n for n, token in enumerate(all_said) if token in ends), 5)
        assert row == all_said[: stop + 1]


def test_padding_stands_on_the_left_and_counts_for_nothing():
    session = Counting()
    said = greedy(session, [Prompt([7, 8, 9]), Prompt([6])], NEVER, 3)
    assert said == [[3, 4, 5], [1, 2, 3]]
    ids, mask, positions = session.read[0]
    assert ids.tolist() == [[7, 8, 9], [0, 0, 6]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert session.read[1][2].tolist() == [[3], [1]]
    assert session.forgot == 1


def test_a_row_that_has_ended_reads_padding():
    session = Counting()
    assert greedy(session, [Prompt([7, 8, 9]), Prompt([6])], frozenset([4]), 9) == [
        [3, 4], [1, 2, 3, 4]]  # fmt: skip
    assert session.read[-1][1].tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]


def test_a_further_turn_reads_only_what_is_new():
    session = Counting()
    reading = Reading(session)
    (said,) = reading.say([Prompt([7, 8])], frozenset([4]), 9)
    assert said == [2, 3, 4]
    (said,) = reading.say([Prompt([7, 8, 2, 3, 4, 30])], frozenset([9]), 9)
    assert session.forgot == 1
    assert session.read[3][0].tolist() == [[4, 30]]
    assert session.read[3][2].tolist() == [[4, 5]]
    assert said == [6, 7, 8, 9]


def test_another_conversation_is_read_from_its_beginning():
    session = Counting()
    reading = Reading(session)
    reading.say([Prompt([7, 8])], NEVER, 2)
    reading.say([Prompt([7, 9, 30])], NEVER, 2)
    assert session.forgot == 2
    assert session.read[-2][0].tolist() == [[7, 9, 30]]
    reading.say([Prompt([7, 9, 30, 1]), Prompt([4])], NEVER, 1)
    assert session.forgot == 3


def test_what_no_longer_fits_behind_is_read_again():
    session = Counting()
    reading = Reading(session)
    for turn in range(4):
        prompts = [Prompt(list(range(2, 4 + turn))), Prompt(list(range(12, 20)))]
        reading.say([prompts[turn % 2], prompts[1 - turn % 2]], NEVER, 6)
        assert session.read[-1][1].shape[1] <= session.room


def test_room(seen):
    with pytest.raises(InputError, match=r"makes 20 tokens and leaves no room.*20 in all"):
        greedy(Counting(), [Prompt([1] * 20)], NEVER, 4)
    assert greedy(Counting(), [Prompt([1] * 18)], NEVER, 9) == [[18, 19]]


@pytest.mark.parametrize("prompts", [[[]], [[1, 2], []]])
def test_a_prompt_of_no_tokens_is_refused(prompts):
    """As an empty one is to a tokenizer that puts nothing before it."""
    with pytest.raises(InputError, match="makes no tokens"):
        greedy(Counting(), [Prompt(ids) for ids in prompts], NEVER, 4)


def test_an_engine_says_how_more_room_is_had():
    session = Counting()
    session.wider = "Ask for more."
    with pytest.raises(InputError, match=r"20 in all\. Shorten it.*\. Ask for more\."):
        greedy(session, [Prompt([1] * 20)], NEVER, 4)


def test_tokens_are_heard_as_they_are_said():
    heard: list[tuple[int, int]] = []
    greedy(Counting(), [Prompt([7, 8, 9]), Prompt([6])], frozenset([4]), 9,
           lambda row, token: heard.append((row, token)))  # fmt: skip
    assert heard == [(0, 3), (1, 1), (0, 4), (1, 2), (1, 3), (1, 4)]


class OneByOne(Resident):
    """An engine that gives the last token's logits only."""

    step_all = Session.step_all


def test_likelihoods_are_those_of_transformers_at_once_and_one_by_one(load, llama):
    model = load(llama)
    ids = torch.randint(5, tiny.VOCABULARY, (12,), generator=torch.Generator().manual_seed(1))
    slow = model.model(input_ids=ids[None]).logits[0].log_softmax(-1)
    for first in (1, 5, 11):
        wanted = [slow[n - 1, ids[n]].item() for n in range(first, 12)]
        best = all(slow[n - 1].argmax() == ids[n] for n in range(first, 12))
        for session in (Resident(model), OneByOne(model)):
            found, greedy_ = log_likelihoods(session, Prompt(ids.tolist()), first)
            assert found == pytest.approx(wanted, abs=1e-4)
            assert greedy_ == best


def test_a_likely_text_is_the_greedy_one(load, llama):
    session = Resident(load(llama))
    (said,) = greedy(session, [Prompt([6, 7, 8])], NEVER, 5)
    _, best = log_likelihoods(session, Prompt([6, 7, 8, *said]), 3)
    assert best
