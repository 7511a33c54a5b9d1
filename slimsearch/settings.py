"""Everything a user can choose for a run: one frozen dataclass, one TOML file, one flag each.

A field's name is its key in settings.toml and, with dashes, its flag; its help text is both the
flag's help and the comment in the file.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from slimsearch import files
from slimsearch.errors import SettingsError, did_you_mean

DEMO = "demo"
BUDGETS = ("weights", "flops", "latency")
ENGINES = ("deepsparse", "deepsparse-int8", "native", "native-int8")  # that latency is foretold of
# Where candidates are scored: changes no result.
WHERE = (
    "executor", "ray_address", "ray_workers", "ray_cpus", "ray_gpus", "ray_retries", "ray_patience",
)  # fmt: skip
LARGE = 100_000_000  # prunable weights: training takes some 36 bytes for each
MOST = 1 << 30  # no setting means anything beyond


def _setting(default: Any, about: str, least: float | None = None, most: float = MOST) -> Any:
    """A field with its help text and, for a number, the range it must lie in."""
    return field(default=default, metadata={"about": about, "range": (least, most)})


@dataclass(frozen=True)
class Settings:
    model: str = _setting(DEMO, "Folder or hub id of a Hugging Face model; 'demo' is ours.")
    ratio: float = _setting(0.5, "Share of the prunable weights to remove, between 0 and 1.")
    policy: str = _setting(
        "auto",
        "Space to search, or policy to apply: a name in policies/ or a TOML file. auto: "
        "per_matrix_wide; per_layer, as published, with --exact.",
    )
    levels: str = _setting(
        "",
        "Sparsity levels in place of the policy's ranges: '-0.10..+0.10 by 0.05' around the "
        "ratio, or '0.4,0.5,0.6'.",
    )
    rounds: int = _setting(10, "Rounds of the search.", 1)
    patience: int = _setting(
        -1,
        "Rounds in a row that lower the best score by less than a hundredth, after which a search "
        "ends early; 0: it plays all its rounds. -1: 2, and 0 with --exact or --strategy pareto.",
        -1,
    )
    candidates: int = _setting(16, "Candidates a round.", 1)
    racing: str = _setting(
        "0.125, 0.5",
        "Shares of the calibration that candidates are measured on first, the better of them on "
        "the next and at last on all of it; '' measures every candidate on all of it.",
    )
    survivors: int = _setting(6, "Candidates that live on to the next round (top-k).", 1)
    finalists: int = _setting(
        4,
        "Best candidates that are pruned exactly before one is crowned; 0 crowns the best as it "
        "was stitched.",
        0,
    )
    calibration: str = _setting(
        "auto",
        "Text to calibrate on: a name in calibration/, or a .txt, .jsonl or .toml file. auto: "
        "demo for the demo model, ptb for any other.",
    )
    also: str = _setting(
        "",
        "More calibration sets for the Hessians, comma-separated: texts as for --calibration, "
        "pairs as for --pairs. alpha_subnet pools its mask over them.",
    )
    segments: int = _setting(0, "Text segments to draw; 0: what the recipe says.", 0)
    segment_length: int = _setting(0, "Tokens a segment; 0: what the recipe says.", 0)
    pairs: str = _setting(
        "auto",
        "Image-text pairs: a LLaVA-style .json, a .jsonl, or a folder of images; 'none' for "
        "none. auto: the recipe's own.",
    )
    pair_count: int = _setting(0, "Pairs to calibrate on; 0: what the recipe says.", 0)
    tokens: str = _setting(
        "both", "Tokens that feed the Hessians: text, prompt (pictures, questions) or both."
    )
    objective: str = _setting(
        "auto",
        "paper (text loss + norm), mixed (text + answer loss), or terms such as 'text_loss + "
        "2*answer_loss' (text_kl, answer_kl: how far from what the dense model says). auto: mixed "
        "where there are pairs.",
    )
    latency_engine: str = _setting(
        "deepsparse", f"Where the term 'latency' foretells times: {', '.join(ENGINES)}."
    )
    latency_phase: str = _setting(
        "prefill", "What it foretells: prefill (a whole prompt) or decode (one token)."
    )
    latency_tokens: int = _setting(
        256, "Tokens of that prompt, or tokens that the cache holds when one is decoded.", 1
    )
    deepsparse_python: str = _setting(
        "", "Python 3.8 to 3.11 that has deepsparse 1.8.0, where this one has not."
    )
    budget: str = _setting(
        "weights",
        "What the ratio is a share of: weights that may be pruned; or what a decoder spends on the "
        "prompt or token of --latency-phase, its flops or its latency in --latency-engine.",
    )
    visual_tokens: int = _setting(
        -1, "How many of --latency-tokens belong to pictures, for a budget; -1: one picture's.", -1
    )
    eta: float = _setting(
        -1.0,
        "Weight of the norm term in the objective. -1: 0.5 with --objective paper, without pairs "
        "and where an objective names eta; else there is no such term.",
        -1,
    )
    solver: str = _setting(
        "sparsegpt", "How weights are chosen and mended (slimsearch list solvers)."
    )
    keep: str = _setting(
        "", "Keep N of every M weights in a row, such as '2:4'; every level must be 1 - N/M."
    )
    stores: str = _setting(
        "none",
        "Folder where runs of the same model, calibration and solver share level stores. auto: "
        "level-stores beside the run folder; none: nothing is shared.",
    )
    store_in: str = _setting(
        "auto",
        "Where the level store is held: gpu, memory, or disk (mapped from the run folder, read as "
        "it is used). auto: gpu where the model is on one that has room, else disk.",
    )
    exact: bool = _setting(
        False,
        "Prune every candidate of a search exactly and sequentially, as published, instead of "
        "stitching it from matrices solved once: far slower.",
    )
    drift_ridge: float = _setting(
        -1.0,
        "Finalists follow what pruned inputs lost against dense ones, held back by this share of "
        "the Hessian's mean diagonal; 0: not at all, as published. -1: 3, and 0 in prune, with "
        "--exact and by a solver that mends nothing.",
        -1,
        1e6,
    )
    true_sequential: bool = _setting(
        False, "In exact prunes, measure each stage of a block after the one before is pruned."
    )
    stream: bool = _setting(
        False, "slimsearch prune: hold one decoder block at a time, for models beyond memory."
    )
    damping: float = _setting(0.01, "Share of the mean diagonal added to every Hessian.", 0, 10)
    reference_count: bool = _setting(
        False,
        "sparsegpt: prune floor(n * ratio) + 1 weights of every block of columns, as the published "
        "code does, instead of exactly as many as asked for.",
    )
    strategy: str = _setting(
        "auto",
        "How candidates are proposed (slimsearch list strategies). auto: surrogate; genetic, as "
        "published, with --exact.",
    )
    executor: str = _setting("local", "Where candidates are scored (slimsearch list executors).")
    ray_address: str = _setting(
        "", "Ray cluster to join: host:port, or auto on one of its hosts; '' starts one here."
    )
    ray_workers: int = _setting(
        0,
        "Processes that score side by side; 0: one for each GPU, or for as many cores as it takes.",
        0,
    )
    ray_cpus: int = _setting(
        0,
        "Cores that a worker takes and threads that it computes with; 0: as many threads as a run "
        "without Ray, so that both give the same, bit for bit.",
        0,
    )
    ray_gpus: float = _setting(
        -1.0, "GPUs that a worker takes, or a part of one; -1: one where --device is a GPU.", -1
    )
    ray_retries: int = _setting(
        2, "How often a candidate whose worker died is tried again before it counts as failed.", 0
    )
    ray_patience: int = _setting(
        600, "Seconds to wait while no worker is ready before the run stops, to be resumed.", 1
    )
    pick: str = _setting(
        "auto",
        "Which candidate is crowned: total, the least weighted sum; knee, where the front bends; "
        "or a bound such as 'bytes<=3e7' and the best of what meets it. auto: knee with --strategy "
        "pareto, else total.",
    )
    neighbours: int = _setting(
        5, "Nearest neighbours behind a candidate's density weight; 0 weighs all alike.", 0
    )
    projector_steps: int = _setting(
        8, "Gradient steps on the projector each round; 0 leaves it alone.", 0
    )
    polish: str = _setting(
        "auto",
        "What is trained once the champion is crowned: projector; gains, which adds those of the "
        "decoder's norms; all, which adds the weights that were kept; or none. auto: all, or gains "
        "where a hundred million weights or more may be pruned; projector with --exact.",
    )
    final_steps: int = _setting(200, "Gradient steps of that polish, and of a tune.", 0)
    pair_share: float = _setting(
        5.0, "How much pairs count in that polish, where text counts 1.", 0, 1e6
    )
    projector_lessons: str = _setting(
        "dense",
        "What the projector learns from pairs: dense, to say what the dense model says at every "
        "word of question and answer; or answers, to give the answers.",
    )
    other_pictures: int = _setting(
        6,
        "How many other pictures the dense model is asked each question about; what it says of "
        "them is learnt too. 0: none, as with --projector-lessons answers.",
        0,
        1000,
    )
    projector_rate: float = _setting(
        3e-4, "Learning rate of the projector step at its highest; it warms up, then falls.", 0, 1
    )
    projector_start: str = _setting(
        "old",
        "What the polish or a tune begins with: old, the projector that is there; or fresh, one "
        "from scratch, which wants more --final-steps and a higher --projector-rate.",
    )
    lora_rank: int = _setting(
        0,
        "tune: train LoRA of this rank beside the decoder's matrices too, and merge it into them; "
        "zeros stay zeros. 0: none. Needs peft.",
        0,
    )
    lora_rate: float = _setting(2e-4, "Learning rate of LoRA at its highest.", 0, 1)
    gain_rate: float = _setting(
        5e-3, "Learning rate of the norms' gains in the polish at its highest.", 0, 1
    )
    weight_rate: float = _setting(
        3e-5, "Learning rate of the kept weights in the polish at its highest.", 0, 1
    )
    seed: int = _setting(0, "Seed of everything drawn.", 0, (1 << 63) - 1)
    device: str = _setting("auto", "cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    dtype: str = _setting(
        "auto",
        "float32, bfloat16 or float16 for forward passes. auto: the model's own on a GPU, and on a "
        "processor that multiplies bf16 for a model in bf16; else float32.",
    )
    attention: str = _setting(
        "auto", "How transformers computes attention: eager or sdpa; auto: what it prefers."
    )
    device_map: str = _setting(
        "",
        "auto: decoder blocks lie where there is room, on GPUs, in memory, on disk (in TMPDIR, or "
        "/var/tmp), and come to the first GPU, or the processor, when they are computed. '': the "
        "whole model on --device.",
    )
    max_memory: str = _setting(
        "",
        "With --device-map auto: the most that weights may take, by place, such as 'cuda:0=20GiB, "
        "cpu=4GiB'. '': 0.6 of what is free.",
    )
    batch_tokens: int = _setting(4096, "Tokens that a forward pass carries at most.", 1)
    out: str = _setting("", "Run folder; default runs/MODEL-RATIO-SEED, numbered on when taken.")
    skip_baselines: bool = _setting(
        False, "Leave the rows that a champion is held against out of the final table."
    )
    json: bool = _setting(False, "Print the result as JSON.")
    dry_run: bool = _setting(False, "Plan and measure a probe candidate, then stop.")


def strategy_of(settings: Settings) -> str:
    """The strategy that proposes candidates."""
    if settings.strategy != "auto":
        return settings.strategy
    return "genetic" if settings.exact else "surrogate"


def patience_of(settings: Settings) -> int:
    """Rounds that hardly bring a better candidate and end a search; 0: none do."""
    if settings.patience >= 0:
        return settings.patience
    return 0 if settings.exact else 2


def calibration_of(settings: Settings) -> str:
    """The text and pairs to calibrate on: a name or a file."""
    if settings.calibration != "auto":
        return settings.calibration
    return "demo" if settings.model == DEMO else "ptb"


def policy_of(settings: Settings) -> str:
    """The space that is searched, or the policy that is applied: a name or a file."""
    if settings.policy != "auto":
        return settings.policy
    return "per_layer" if settings.exact else "per_matrix_wide"


def polish_of(settings: Settings, prunable: int) -> str:
    """What the last step trains of a model with so many weights that may be pruned."""
    if settings.polish != "auto":
        return settings.polish
    if settings.exact:
        return "projector"
    return "all" if prunable < LARGE and not settings.device_map else "gains"


def read(file: Path, needed: Iterable[str] = ()) -> Settings:
    """Settings from a TOML file; keys that are missing, and not needed, keep their defaults."""
    try:
        found = files.read_toml(file)
    except FileNotFoundError:
        raise SettingsError(f"There is no settings file {file}.") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} is no readable TOML file: {error}.") from None
    if missing := sorted(set(needed) - set(found)):
        raise SettingsError(f"{file} lacks '{missing[0]}': it was cut short. Restore it.")
    chosen = _replaced(Settings(), found, str(file))
    try:
        return checked(chosen)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from None


def change(settings: Settings, values: dict[str, Any], origin: str) -> Settings:
    """A copy with some values replaced, each checked; `origin` names their source in errors."""
    return checked(_replaced(settings, values, origin))


def checked(settings: Settings) -> Settings:
    """The same settings, or a SettingsError that says which value cannot be and why."""
    if not 0 < settings.ratio < 1:
        raise SettingsError(
            f"ratio = {settings.ratio:g} cannot be: it is the share of weights to remove and lies "
            f"between 0 and 1. Try --ratio 0.5."
        )
    for item in fields(Settings):
        value, (least, most) = getattr(settings, item.name), item.metadata["range"]
        if least is not None and (not least <= value <= most or -1 < value < 0):
            upwards = "or more" if most == MOST else f"to {most:g}"
            low = "-1, or 0" if least == -1 else f"{least:g}"
            raise SettingsError(f"{item.name} = {value:g} cannot be: give {low} {upwards}.")
    _one_of(settings.store_in, "store_in", ("auto", "gpu", "memory", "disk"))
    _one_of(settings.budget, "budget", BUDGETS)
    _one_of(settings.latency_engine, "latency_engine", ENGINES)
    _one_of(settings.latency_phase, "latency_phase", ("prefill", "decode"))
    _one_of(settings.projector_start, "projector_start", ("old", "fresh"))
    _one_of(settings.tokens, "tokens", ("text", "prompt", "both"))
    _one_of(settings.projector_lessons, "projector_lessons", ("dense", "answers"))
    _one_of(settings.polish, "polish", ("auto", "none", "projector", "gains", "all"))
    _one_of(settings.attention, "attention", ("auto", "eager", "sdpa"))
    _one_of(settings.dtype, "dtype", ("auto", "float32", "bfloat16", "float16"))
    return settings


def write(settings: Settings) -> str:
    """The settings as TOML, every default spelled out, each with its help text."""
    lines = ["# Every choice of this run. slimsearch run --from settings.toml repeats it.", ""]
    for item in fields(Settings):
        value = getattr(settings, item.name)
        lines += [f"# {item.metadata['about']}", f"{item.name} = {files.to_toml(value)}"]
    return "\n".join(lines) + "\n"


def as_dict(settings: Settings) -> dict[str, Any]:
    return asdict(settings)


_TYPE_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def _one_of(value: str, key: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{key} = '{value}' cannot be.{did_you_mean(value, known)}")


def _replaced(settings: Settings, values: dict[str, Any], origin: str) -> Settings:
    """A copy with some values replaced, each known and of its type."""
    known = get_type_hints(Settings)
    for key, value in values.items():
        if key not in known:
            raise SettingsError(f"{origin} has an unknown key '{key}'.{did_you_mean(key, known)}")
        if known[key] is float and type(value) is int:
            values = values | {key: float(value)}
        elif type(value) is not known[key]:
            raise SettingsError(
                f"{origin}: '{key}' must be {_TYPE_NAMES[known[key]]}, found {value!r}."
            )
    return replace(settings, **values)
