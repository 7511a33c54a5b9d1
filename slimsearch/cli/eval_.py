"""slimsearch eval: what a model can do, by the official files and rules of a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from slimsearch.cli.options import with_changes
from slimsearch.errors import SettingsError

if TYPE_CHECKING:
    from slimsearch.evaluation.judging import Judge


@with_changes("device_map", "max_memory")
def command(
    changes: dict[str, str],
    model: Annotated[
        str, typer.Argument(help="A finished run (its champion), export, model folder or hub id.")
    ] = "",
    task: Annotated[str, typer.Option(help="slimsearch list tasks.")] = "",
    data: Annotated[
        str,
        typer.Option(help="The dataset's own files: a folder or file; hub: fetched by datasets."),
    ] = "",
    against: Annotated[
        str,
        typer.Option(
            help="Others to compare with, commas between them: models, dense (what this one was "
            "pruned from), uniform (a run's baseline, pruned now where it was not yet)."
        ),
    ] = "",
    answers: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Score a file of answers; no model is needed."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out what is missing: pictures, or answers.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=0, help="Ask so many questions, drawn by --seed; 0: all.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of questions drawn, and of intervals.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Questions side by side.")] = 8,
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Of an answer; 0: what the task says.")
    ] = 0,
    split: Annotated[str, typer.Option(help="scienceqa: of pid_splits.json.")] = "",
    form: Annotated[
        str, typer.Option(help="scienceqa: letters, as LLaVA 1.5 is asked, or options.")
    ] = "",
    instruction: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="In place of the line behind each question; '' for none."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="vqa: vizwiz, vqav2, textvqa or gqa.")] = "",
    length: Annotated[int, typer.Option(min=0, help="perplexity: tokens of a window.")] = 0,
    stride: Annotated[
        int, typer.Option(min=0, help="perplexity: from a window to the next; 0: its length.")
    ] = 0,
    judge: Annotated[
        str, typer.Option(help="mmvet, llava_bench: an OpenAI-compatible address that grades.")
    ] = "",
    judge_model: Annotated[str, typer.Option(help="The judge's model.")] = "",
    judge_key: Annotated[
        str, typer.Option(help="The environment variable that holds the judge's key.")
    ] = "OPENAI_API_KEY",
    judge_price: Annotated[
        str, typer.Option(help="IN,OUT for a million tokens, to be told what grading costs.")
    ] = "",
    judge_prompt: Annotated[
        str, typer.Option(help="mmvet: a file with the judge's instruction, such as the official.")
    ] = "",
    runtime: Annotated[str, typer.Option(help="slimsearch list runtimes.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="torch: float32 (on a CPU) or bfloat16; '' leaves it to the device.")
    ] = "",
    threads: Annotated[int, typer.Option(min=0, help="0 leaves it to the engine.")] = 0,
    deepsparse_python: Annotated[
        str, typer.Option(help="A Python that has deepsparse 1.8.0, where this one has not.")
    ] = "",
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="A folder; default: eval/ in the run or export, or here."),
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask again what was answered before.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate a model, or a file of answers, by a task's official files and rules.

    Stopped, it goes on when it is called again.
    """
    from slimsearch import display, plugins
    from slimsearch.display import Display
    from slimsearch.evaluation.evaluating import evaluate
    from slimsearch.evaluation.examining import Engine
    from slimsearch.evaluation.sitting import Exam

    if not task:
        raise SettingsError(f"Say what to ask: --task {', '.join(plugins.names('tasks'))}.")
    words = {
        "split": split, "form": form, "dataset": dataset, "length": length, "stride": stride,
        "judge_prompt": judge_prompt,
    }  # fmt: skip
    choices = {name: value for name, value in words.items() if value}
    if instruction is not None:
        choices["instruction"] = instruction
    exam = Exam(
        task, data, model, str(answers) if answers else "", against, limit, seed, out, fresh,
        partial,
        choices,
        Engine(runtime, threads, batch, max_new_tokens, {
            "dtype": dtype, "deepsparse_python": deepsparse_python, **changes,
        }),
        _judge(judge, judge_model, judge_key, judge_price),
    )  # fmt: skip
    with Display() as watch:
        result = evaluate(exam, watch)
    if json:
        display.as_json(result)
    else:
        display.evaluation(result)


def _judge(url: str, model: str, key: str, price: str) -> Judge | None:
    from slimsearch.evaluation.judging import Judge

    if not url:
        return None
    try:
        parts = tuple(float(part) for part in price.split(",")) if price else None
    except ValueError:
        parts = ()
    if parts is not None and len(parts) != 2:
        raise SettingsError(f"--judge-price {price} cannot be: give IN,OUT such as 2.5,10.")
    return Judge(url, model, key, parts)
