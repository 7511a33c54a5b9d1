"""What a route leaves to compute, by formula and as torch counts it while blocks run along it."""

from dataclasses import replace

import pytest
import tiny
import tiny_families
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from slimsearch.calibration import Pair, Turn
from slimsearch.flops import count, shape
from slimsearch.flops.count import FFN, PROJECTIONS, SCORES
from slimsearch.flops.measured_pass import measured_pass
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.model.batch import Batch, saliences
from slimsearch.model.vlm import VLM
from slimsearch.routes import merging
from slimsearch.routes.kinds import PROMPT
from slimsearch.routes.route import EVERY, PICTURES, TOKENS, Merge, Route, Step, plain

PLAIN = SDPBackend.MATH  # the counter does not know the others on a CPU
ROUTES = {
    "dense": (Step(), Step()),
    "a block skipped": (Step(skip_block=EVERY), Step()),
    "skipped for answers only": (Step(skip_block=TOKENS["T"]), Step()),
    "an FFN skipped": (Step(), Step(skip_ffn=EVERY)),
    "attention skipped": (Step(skip_attention=EVERY), Step(parallel_ffn=True)),
    "pictures cut off": (Step(window=0), Step(window=0)),
    "pictures left out at last": (Step(), Step(skip_block=PICTURES)),
    "both": (Step(window=0), Step(skip_block=PICTURES)),
    "two side by side": (Step(parallel_next="sum"), Step()),
    "pictures merged": (Step(), Step()),
    "merged, cut and left out": (Step(window=0), Step(skip_block=PICTURES)),
}
MERGED = Merge(0.5)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> tuple[VLM, Batch]:
    """A model, and a prompt with a picture in it."""
    place = tmp_path_factory.mktemp("routes")
    folder = tiny_families.make("llava", place / "model", heads=4, kv_heads=2)
    vlm = loading.load(checkpoint.find(str(folder)), "cpu", "float32")
    assert vlm.sight is not None
    vlm.sight.notes_salience = True
    tiny.picture(3).save(place / "3.png")
    pair = Pair("3", place / "3.png", (Turn("What colour is it?", "red and green"),))
    (batch,) = conversation.pair_batches(vlm, conversation.load(vlm.checkpoint), [pair], 4000)
    return vlm, replace(batch, classes=torch.full_like(batch.classes, PROMPT))


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_costs_what_the_counter_says(seeing, name):
    vlm, batch = seeing
    route = Route(ROUTES[name], MERGED if "merged" in name else None)
    sizes = shape.read(vlm.checkpoint)
    visual, length = int((batch.ids == vlm.picture_token).sum()), batch.ids.shape[1]
    vlm.reroute("test", route)
    try:
        given = vlm.given(batch)
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(PLAIN):
            vlm.hidden(given)
    finally:
        vlm.reroute("test", plain(len(vlm.blocks)))
    one = measured_pass(sizes, "prefill", length, visual)
    if route.merge:
        one = one.merged(merging.share(saliences([batch]), route.merge))
        assert 0 < one.visual < visual
    parts = count.decoder(sizes, one.traffic(route), {})
    matrices = parts[PROJECTIONS].dense + parts[FFN].dense
    operations = counter.get_flop_counts()["Global"].items()
    scores = sum(flops for name, flops in operations if "bmm" in str(name))
    assert sum(flops for _, flops in operations) - scores == matrices
    assert scores == parts[SCORES].dense
