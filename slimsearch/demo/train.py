"""Trains the demo model from nothing: python -m slimsearch.demo.train --out FOLDER

Vision tower, projector and decoder learn together. Half of each step's loss is text, the other
half the answers to many questions a picture; every picture is fresh, drawn as it is needed.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from slimsearch.demo.measure import accuracy, perplexity
from slimsearch.demo.recipe import (
    END,
    IGNORED,
    Model,
    Rows,
    cell_words,
    make_model,
    make_processor,
    picture_rows,
    pixel_values,
    text_tokens,
)
from slimsearch.demo.world import pictures, stream, text

STEPS = 6500
VISION_STEPS = 300
WORKERS = 2
PICTURES_A_STEP = 8  # a worker
QUESTIONS_EACH = 8
SEGMENTS_A_STEP = 4  # a worker
SEGMENT_LENGTH = 128
TEXT_WORDS = 1_000_000  # a worker
SEEDS_APART = 1000
LEARNING_RATE = 1.5e-3  # for AdamW: embeddings and norms
MATRIX_RATE = 2.5e-3  # for Muon: the other matrices of the decoder
PROJECTOR_RATE = 3e-4
WARM_UP_STEPS = 100
COOL_DOWN = 0.5  # the last part of the steps, over which the rates fall to nothing


@dataclass(frozen=True)
class Plan:
    """Where to write the model, and how long to train it on what."""

    out: Path
    seed: int = 0
    steps: int = STEPS
    vision_steps: int = VISION_STEPS
    text_words: int = TEXT_WORDS
    check_every: int = 1000


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m slimsearch.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    chosen = parser.parse_args(arguments)
    train(Plan(chosen.out, chosen.seed, chosen.steps))


def train(plan: Plan) -> None:
    """Trains as planned, saying how it goes, and writes the folder `plan.out`.

    Each worker is one thread with its own half of every batch. They meet once a step, not once
    an operation, which suits two cores better, and far better where the cores are shared.
    """
    with TemporaryDirectory() as meeting_place:
        spawn(_work, (plan, meeting_place), nprocs=WORKERS)


def _work(worker: int, plan: Plan, meeting_place: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_place}/workers", rank=worker, world_size=WORKERS
    )
    own_seed = plan.seed * WORKERS + worker
    processor = make_processor(plan.seed)
    model = make_model(plan.seed)
    model.set_attn_implementation("eager")  # its backward pass is twice as fast on a CPU
    teach_vision(model, processor.tokenizer, own_seed, plan.vision_steps)
    model.model.vision_tower.requires_grad_(False)  # left free, it learned slower in a trial
    tokens = text_tokens(plan.text_words, own_seed, processor.tokenizer)
    _teach(model, processor, _segments(tokens, own_seed), own_seed, plan)
    if _leads():
        save(model, processor, plan.out)
    distributed.barrier()
    distributed.destroy_process_group()


def _teach(
    model: Model,
    processor: LlavaProcessor,
    segments: Iterator[torch.Tensor],
    own_seed: int,
    plan: Plan,
) -> None:
    """The joint phase: answers and text, all weights."""
    optimizers = _optimizers(model)
    shown = stream("training", QUESTIONS_EACH, own_seed)
    began = time.monotonic()
    for step in range(1, plan.steps + 1):
        rows = picture_rows(list(islice(shown, PICTURES_A_STEP)), processor.tokenizer)
        with torch.autocast("cpu", torch.bfloat16):
            losses = answer_loss(model, rows), text_loss(model, next(segments))
        ((losses[0] + losses[1]) / 2).backward()
        _share_gradients(list(model.parameters()))
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * _share(step, plan.steps)
            optimizer.step()
            optimizer.zero_grad()
        if _leads() and step % 50 == 0:
            _report(step, losses, began)
        if _leads() and step % plan.check_every == 0:
            _check(model, processor)
            save(model, processor, plan.out)


def teach_vision(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    own_seed: int,
    steps: int,
) -> None:
    """A short start for tower and projector: a visual token is the sum of its cell's words.

    The decoder then finds things in a picture as it finds words in a text. Without this start
    it spends most of its time on guessing from the questions alone.
    """
    learners = [
        *model.model.vision_tower.parameters(),
        *model.model.multi_modal_projector.parameters(),
    ]
    optimizer = torch.optim.AdamW(learners, lr=LEARNING_RATE)
    words = model.get_input_embeddings().weight.detach()
    scale = words.var() * cell_words([], tokenizer).shape[-1]
    shown = stream("training", 0, own_seed + SEEDS_APART)
    for step in range(1, steps + 1):
        batch = list(islice(shown, 3 * PICTURES_A_STEP))
        with torch.autocast("cpu", torch.bfloat16):
            features = model.model.get_image_features(pixel_values(batch)).pooler_output
        wanted = words[cell_words(batch, tokenizer)].sum(dim=2)
        loss = functional.mse_loss(torch.stack(list(features)).float(), wanted) / scale
        loss.backward()
        _share_gradients(learners)
        optimizer.step()
        optimizer.zero_grad()
        if _leads() and step % 50 == 0:
            print(f"vision step {step}  unexplained {loss.item():.3f}", flush=True)


def answer_loss(model: Model, rows: Rows) -> torch.Tensor:
    """Mean loss of an answer, its tokens summed."""
    hidden = model.model(input_ids=rows.tokens, pixel_values=rows.pixels).last_hidden_state
    wanted = rows.labels[:, 1:]
    counts = wanted != IGNORED
    logits = model.lm_head(hidden[:, :-1][counts]).float()
    total = functional.cross_entropy(logits, wanted[counts], reduction="sum")
    return total / (wanted == END).sum()


def text_loss(model: Model, segments: torch.Tensor) -> torch.Tensor:
    hidden = model.model(input_ids=segments).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden).float()
    return functional.cross_entropy(logits.flatten(0, 1), segments[:, 1:].flatten())


def save(model: Model, processor: LlavaProcessor, out: Path) -> None:
    """Writes the folder in bfloat16, every file whole or not at all."""
    fresh = out.with_name(out.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    kept = make_model(0)
    kept.load_state_dict(model.state_dict())
    kept.to(torch.bfloat16).save_pretrained(fresh)
    processor.save_pretrained(fresh)
    processor.image_processor.save_pretrained(fresh)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(fresh.iterdir()):
        os.replace(file, out / file.name)
    fresh.rmdir()


def _share_gradients(weights: list[torch.nn.Parameter]) -> None:
    """Gives every worker the mean of all workers' gradients, of length 1 at most."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= max(WORKERS, together.norm().item())
    parts = together.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _leads() -> bool:
    return distributed.get_rank() == 0


def _optimizers(model: Model) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the decoder's matrices, AdamW for the rest, each with its highest rate.

    In one trial each, Muon had learned to look things up in fewer steps than AdamW alone.
    """
    decoder = dict(model.get_decoder().named_parameters())
    matrices = [
        weight for name, weight in decoder.items() if weight.ndim == 2 and "embed" not in name
    ]
    others = [weight for name, weight in decoder.items() if weight.ndim != 2 or "embed" in name]
    projector = model.model.multi_modal_projector.parameters()
    muon = torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [
        (muon, MATRIX_RATE),
        (torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0), LEARNING_RATE),
        (torch.optim.AdamW(projector, betas=(0.9, 0.98)), PROJECTOR_RATE),
    ]


def _share(step: int, steps: int) -> float:
    """The share of the highest rate at a step: warm-up, a long level, then straight down."""
    return min(1.0, step / WARM_UP_STEPS, (steps - step + 1) / (COOL_DOWN * steps))


def _segments(tokens: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    """Batches of segments from random places in the text."""
    generator = torch.Generator().manual_seed(seed)
    windows = tokens.unfold(0, SEGMENT_LENGTH, 1)
    while True:
        yield windows[torch.randint(len(windows), (SEGMENTS_A_STEP,), generator=generator)]


def _report(step: int, losses: tuple[torch.Tensor, ...], began: float) -> None:
    answers, words = (loss.item() for loss in losses)
    print(
        f"step {step}  answers {answers:.3f}  text {words:.3f}  "
        f"{(time.monotonic() - began) / 60:.1f} min",
        flush=True,
    )


def _check(model: Model, processor: LlavaProcessor) -> None:
    """Prints accuracy and perplexity on a few calibration pictures and words."""
    model.eval()
    shares = accuracy(model, processor, pictures("calibration", 50, 6))
    reading = perplexity(model, processor.tokenizer, text("calibration", 2000))
    print(
        "  ",
        json.dumps({kind: round(share, 3) for kind, share in sorted(shares.items())}),
        f"perplexity {reading:.2f}",
        flush=True,
    )
    model.train()


if __name__ == "__main__":
    main()
