"""Compiles the translations when the package is built or installed: gettext reads no ``.po`` files."""

from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileTranslations(BuildHookInterface[Any]):
    """Writes a ``.mo`` beside each ``.po`` of the package, in wheels and editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Called by hatchling before it collects the files."""
        for source in Path(self.root, 'src').rglob('*.po'):
            with source.open('rb') as po, source.with_suffix('.mo').open('wb') as mo:
                write_mo(mo, read_po(po))
