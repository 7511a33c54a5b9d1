"""slimsearch export: a finished run's champion, or any model, in the forms that engines run."""

from pathlib import Path
from typing import Annotated, Optional

import typer


def command(
    source: Annotated[
        str, typer.Argument(help="A finished run, a model folder, hub id or 'demo'.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that does not exist yet.")],
    to: Annotated[
        list[str], typer.Option(help="A form (slimsearch list exporters); may be given again.")
    ] = ["hf"],  # noqa: B006  typer copies it
    policy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Prune a model exactly by this policy first: a name or a file."),
    ] = None,
    settings_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--from", help="A settings.toml: for --policy, or for what int8 is calibrated on."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="The decoder's matrices in int8, zeros exact.")
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            help="native: bf16, int8 or fp32, else the model's own; openvino: float32 or bfloat16."
        ),
    ] = "",
    room: Annotated[
        int,
        typer.Option(
            min=0, help="deepsparse: tokens its cache holds; 0: the model's, 2048 at most."
        ),
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Write a pruned model in the forms that engines run, all in one folder."""
    from dataclasses import replace

    from slimsearch import display, settings
    from slimsearch.api import exporting
    from slimsearch.display import Display
    from slimsearch.errors import SettingsError

    choices = exporting.Choices(room=room, int8=int8, dtype=dtype)
    exporting.check(choices, to)
    if settings_file and not policy and not choices.in_int8:
        raise SettingsError("--from says how to prune, and nothing is pruned without --policy.")
    chosen = settings.read(settings_file) if settings_file else settings.Settings()
    pruned_by = replace(chosen, policy=policy) if policy else None
    with Display() as watch:
        calibrated_by = chosen if settings_file else None
        record = exporting.export(source, to, out, choices, pruned_by, watch, calibrated_by)
    if json:
        display.as_json({"folder": str(out), **record})
        return
    display.say(f"Wrote {out}: {', '.join(record['exports'])}.")
    for form, facts in record["exports"].items():
        if note := facts.get("note"):
            display.say(f"{form}: {note}")
