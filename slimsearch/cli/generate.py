"""slimsearch generate: asks an exported model about pictures, in any engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slimsearch.cli.options import with_changes

if TYPE_CHECKING:
    from slimsearch.api.generating import Answer, Talk


@with_changes("device_map", "max_memory")
def command(
    changes: dict[str, str],
    export: Annotated[Path, typer.Argument(help="An export, or a model folder such as RUN/model.")],
    prompt: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A question; given again, the next one of the same conversation."),
    ] = None,
    image: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="The picture; given again, a conversation about each, side by side."),
    ] = None,
    batch: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help='Instead: lines of {"image": FILE, "prompt": TEXT or [TEXT, ...]}.'),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to say.")] = 64,
    runtime: Annotated[
        str, typer.Option(help="slimsearch list runtimes; auto takes what the folder is made for.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0 leaves it to the engine.")] = 0,
    deepsparse_python: Annotated[
        str, typer.Option(help="A Python that has deepsparse 1.8.0, where this one has not.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Ask an exported model about pictures: text as it is said."""
    from slimsearch import display
    from slimsearch.api import generating

    conversations = generating.asked(prompt or [], image or [], batch)
    choices = {"deepsparse_python": deepsparse_python, **changes}
    name, speaker = generating.open(export, runtime, threads, choices)
    talks = [talk for talk, _ in conversations]
    alone = len(talks) == 1 and not json
    answers: list[list[Answer]] = []
    for questions in zip(*(questions for _, questions in conversations), strict=True):
        hear = (lambda _, piece: display.stream(piece)) if alone else (lambda _, __: None)
        answers.append(speaker.ask(talks, questions, max_new_tokens, hear))
        if alone:
            display.say("")
    speaker.session.close()
    if json:
        display.as_json(_facts(name, talks, answers))
    elif not alone:
        for row, talk in enumerate(talks):
            for turn, said in zip(talk.turns, answers, strict=True):
                display.say(f"{talk.picture or row + 1}: {turn.question} -> {said[row].text}")


def _facts(name: str, talks: list[Talk], answers: list[list[Answer]]) -> dict[str, Any]:
    """Every turn of every conversation; of a single one the last answer at the top too."""
    conversations = [
        {
            "image": None if talk.picture is None else str(talk.picture),
            "turns": [
                {"prompt": turn.question, "text": said[row].text, "tokens": list(said[row].tokens)}
                for turn, said in zip(talk.turns, answers, strict=True)
            ],
        }
        for row, talk in enumerate(talks)
    ]
    facts: dict[str, Any] = {"runtime": name, "conversations": conversations}
    if len(talks) == 1:
        last = answers[-1][0]
        facts |= {"text": last.text, "tokens": list(last.tokens), "ended": last.ended}
    return facts
