"""slimsearch generate: asks a model folder a question."""

from pathlib import Path
from typing import Annotated, Optional

import typer


def command(
    model: Annotated[Path, typer.Argument(help="A model folder, such as RUN/model.")],
    prompt: Annotated[str, typer.Option(help="The question.")],
    image: Annotated[Optional[Path], typer.Option(help="The picture it is about.")] = None,  # noqa: UP045
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to say.")] = 64,
    runtime: Annotated[str, typer.Option(help="slimsearch list runtimes.")] = "torch",
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Ask a model a question about a picture."""
    from slimsearch import display, plugins

    session = plugins.find("runtimes", runtime)().open(model)
    said: list[int] = []
    logits = session.prefill(prompt, image)
    while len(said) < max_new_tokens:
        token = int(logits.argmax())
        if token in session.end:
            break
        said.append(token)
        logits = session.decode(token)
    text = session.text(said).strip()
    if json:
        display.as_json({"text": text, "tokens": said})
    else:
        display.say(text)
