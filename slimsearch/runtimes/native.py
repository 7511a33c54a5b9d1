"""native: our own kernels, which read the bits and the values that stayed; pictures in torch."""

from pathlib import Path
from typing import ClassVar

from slimsearch import artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import ModelError
from slimsearch.native import form, library


class Native(Runtime):
    forms: ClassVar = (form.FORM,)

    def absent(self) -> str | None:
        return library.absent() or None

    def open(self, folder: Path, threads: int = 0) -> Session:
        from slimsearch.native.session import NativeSession

        found = artefact.find(folder)
        if not found.holds(form.FORM):
            raise ModelError(
                f"{folder} holds nothing for the native engine. Write it with --to native too, or "
                f"choose another --runtime."
            )
        return NativeSession(found.native(), threads)
