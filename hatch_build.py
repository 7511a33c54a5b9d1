"""Builds the native engine's library into the wheel; without a compiler it goes without."""

import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if version != "standard":  # a checkout compiles at first use
            return
        sys.path.insert(0, self.root)
        from slimsearch import compiled
        from slimsearch.native import sources

        compiler = compiled.found_compiler()
        if compiler is None:
            self.app.display_warning("No C compiler: the wheel holds no native engine.")
            return
        self._place = TemporaryDirectory()
        built = Path(self._place.name) / sources.BUILT.name
        compiled.build(compiler, sources.SOURCES, sources.FLAGS, built)
        inside = sources.BUILT.relative_to(self.root).as_posix()
        build_data["force_include"][str(built)] = inside
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        if place := getattr(self, "_place", None):
            place.cleanup()
