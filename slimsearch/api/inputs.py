"""Everything that a run reads, found and checked before a model is loaded, cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from slimsearch import calibration, plugins, shelf
from slimsearch import policy as policies
from slimsearch.calibration import Material
from slimsearch.contracts import Architecture
from slimsearch.errors import CalibrationError, SettingsError
from slimsearch.model import checkpoint, conversation, loading, placing
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.conversation import Speech
from slimsearch.policy import PolicyFile
from slimsearch.searching import objective, picking, space
from slimsearch.settings import WHERE, Settings, as_dict, policy_of, strategy_of
from slimsearch.version import versions

# Settings that change no result, or whose content is in the fingerprint by itself.
ELSEWHERE = (
    "out", "stores", "store_in", "device_map", "max_memory", "json", "dry_run", "model", "policy",
    "calibration", "pairs", *WHERE,
)  # fmt: skip


@dataclass(frozen=True)
class Given:
    settings: Settings
    checkpoint: Checkpoint
    architecture: Architecture
    policy: PolicyFile
    material: Material
    speech: Speech
    segments: torch.Tensor  # [count, length]
    also_segments: tuple[torch.Tensor, ...]  # of material.also, in its order; empty for pairs
    held_segments: torch.Tensor  # [count, length]; none where there is too little text
    notes: tuple[str, ...]  # what the user should read

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must find unchanged. Hashes every shard, so only once."""
        chosen, device = as_dict(self.settings), loading.pick_device(self.settings.device)
        return {
            "model": self.checkpoint.fingerprint(),
            "calibration": self.material.fingerprint(),
            "policy": {name: dict(table) for name, table in self.policy.tables.items()},
            "settings": {key: value for key, value in chosen.items() if key not in ELSEWHERE},
            "versions": versions(),
            "device": device.type,
            "dtype": str(loading.pick_dtype(self.checkpoint, self.settings.dtype, device)),
        }


def gather(settings: Settings) -> Given:
    """Finds and checks every input; raises before anything heavy happens."""
    for kind, name in (
        ("solvers", settings.solver),
        ("strategies", strategy_of(settings)),
        ("executors", settings.executor),
    ):
        plugins.find(kind, name)
    _check_terms(settings)
    policy = _policy(settings)
    _check_solving(settings)
    found = checkpoint.find(settings.model)
    architecture = loading.architecture_of(found)
    sees = architecture.sees
    material = calibration.gather(settings if sees else replace(settings, pairs="none"))
    _check_pairs(settings, material)
    _check_length(found, material)
    speech = conversation.load(found)
    stream = speech.tokens(material.held_text) if material.held_text else []
    enough = len(stream) >= material.segment_length
    return Given(
        settings,
        found,
        architecture,
        policy,
        material,
        speech,
        _draw(speech.tokens(material.text), material, material.segments, settings.seed),
        tuple(_also(settings, speech, material)),
        _draw(stream, material, material.held_segments if enough else 0, settings.seed),
        (*material.notes, *_notes(settings, sees, material, enough)),
    )


def _policy(settings: Settings) -> PolicyFile:
    policy = policies.read(shelf.find("policies", policy_of(settings)))
    families = {name: plugins.make("families", name, as_dict(settings)) for name in policy.tables}
    space.check(policy, families, settings.ratio)
    if settings.levels:
        policies.parse_levels(settings.levels, settings.ratio, "--levels")
    return policy


def _check_solving(settings: Settings) -> None:
    """Refuses a device that is not there, and what does not go with it or with the solver."""
    placing.check(settings)
    device = loading.pick_device(settings.device)
    if settings.store_in == "gpu" and device.type == "cpu":
        raise SettingsError(
            "store_in = 'gpu' keeps the level store beside a model on a GPU, and this one is on "
            "the CPU. Use --store-in memory or disk."
        )
    if settings.reference_count and settings.solver != "sparsegpt":
        raise SettingsError(
            f"reference_count is how SparseGPT's published code counts; {settings.solver} has no "
            f"such count. Leave it out, or use --solver sparsegpt."
        )


def _check_terms(settings: Settings) -> None:
    """Refuses an objective that cannot be read, or that a strategy or a pick has no use for."""
    terms = objective.weights(settings, pairs=True)
    several = plugins.find("strategies", strategy_of(settings)).weighs_terms
    picking.parse(settings.pick, terms, several)
    if several and len(terms) not in (2, 3):
        raise SettingsError(
            f"Strategy '{settings.strategy}' weighs two or three terms against each other; the "
            f"objective has {len(terms)}: {', '.join(terms)}. Say which, such as --objective "
            f"'text_loss + answer_loss'."
        )


def _check_pairs(settings: Settings, material: Material) -> None:
    """Refuses settings that need pairs where there are none."""
    if material.pairs and settings.objective != "paper":
        return
    if settings.tokens == "prompt":
        raise SettingsError(
            "tokens = 'prompt' needs image-text pairs: there is no prompt in plain text. Give "
            "--pairs, or use --tokens text."
        )
    for term in objective.weights(settings, pairs=False):
        if plugins.find("objectives", term).needs_pairs:
            raise SettingsError(
                f"The objective's term '{term}' needs image-text pairs, and there are none. Give "
                f"--pairs, or use --objective paper."
            )


def _check_length(found: Checkpoint, material: Material) -> None:
    """Refuses segments that are longer than the model reads."""
    config = found.config.get("text_config", found.config)
    longest = config.get("max_position_embeddings") or material.segment_length
    if material.segment_length > longest:
        raise CalibrationError(
            f"Segments of {material.segment_length} tokens are longer than {found.folder} reads "
            f"({longest}). Use --segment-length {longest} or less."
        )


def _draw(stream: list[int], material: Material, count: int, seed: int) -> torch.Tensor:
    """Segments drawn from a stream of tokens, [count, length]."""
    length = material.segment_length
    if not count:
        return torch.empty(0, length, dtype=torch.int64)
    origin = material.text_origin
    return torch.from_numpy(calibration.draw_segments(stream, count, length, seed, origin))


def _also(settings: Settings, speech: Speech, material: Material) -> Iterator[torch.Tensor]:
    """Segments of every text among the further calibration sets."""
    for also in material.also:
        if also.pairs and speech.processor is None:
            raise SettingsError(
                f"--also {also.name} holds pictures, and this model is text-only. Leave it out."
            )
        stream = speech.tokens(also.text) if also.text else []
        count = material.segments if also.text else 0
        yield _draw(stream, replace(material, text_origin=also.name), count, settings.seed)


def _notes(settings: Settings, sees: bool, material: Material, enough: bool) -> list[str]:
    """What the user should know about this combination of model, data and settings."""
    notes = []
    if not enough:
        notes.append("There is too little held-out text for one segment: no perplexity is shown.")
    if not sees:
        notes.append("A text-only model: it has no projector, so the projector step is skipped.")
    elif settings.objective == "paper":
        notes.append(
            "Objective 'paper' is text only: it gives the projector no gradient, so the projector "
            "step is skipped."
        )
    elif not material.pairs:
        notes.append(
            "No image-text pairs: the projector step is skipped and pictures are not calibrated "
            "on. Give some with --pairs."
        )
    return notes
