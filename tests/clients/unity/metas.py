"""
The .meta files of the Unity package: their names, and those that are missing.

Unity identifies a file by the GUID in its .meta file, and ignores files of a package
that have none. An editor makes them; ``python tests/clients/unity/metas.py`` does it
where there is none. The GUID is a digest of the path at that time, so that it is the
same whoever runs it; from then on it stays, also when the file moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PACKAGE", "assets", "meta_of"]

PACKAGE = Path(__file__).parents[3] / "clients" / "unity"

_IMPORTERS = {
    ".asmdef": "AssemblyDefinitionImporter",
    ".json": "PackageManifestImporter",
    ".md": "TextScriptImporter",
    ".xml": "TextScriptImporter",
}
_USER_DATA = "  userData: \n  assetBundleName: \n  assetBundleVariant: \n"
_SCRIPT = (
    "MonoImporter:\n  externalObjects: {}\n  serializedVersion: 2\n"
    "  defaultReferences: []\n  executionOrder: 0\n  icon: {instanceID: 0}\n"
)
# For WebGL alone: elsewhere there is no JavaScript.
_JSLIB = (
    "PluginImporter:\n  externalObjects: {}\n  serializedVersion: 2\n  iconMap: {}\n"
    "  executionOrder: {}\n  defineConstraints: []\n  isPreloaded: 0\n"
    "  isOverridable: 0\n  isExplicitlyReferenced: 0\n  validateReferences: 1\n"
    "  platformData:\n  - first:\n      Any: \n    second:\n      enabled: 0\n"
    "      settings: {}\n  - first:\n      Editor: Editor\n    second:\n"
    "      enabled: 0\n      settings:\n        DefaultValueInitialized: true\n"
    "  - first:\n      WebGL: WebGL\n    second:\n      enabled: 1\n"
    "      settings: {}\n"
)


def assets() -> Iterator[Path]:
    """Yield what Unity imports: all but ``.meta`` files and folders with a tilde."""
    for path in sorted(PACKAGE.rglob("*")):
        parts = path.relative_to(PACKAGE).parts
        if path.suffix != ".meta" and not any(
            part.endswith("~") or part.startswith(".") for part in parts
        ):
            yield path


def meta_of(path: Path) -> Path:
    return path.with_name(path.name + ".meta")


def _text_for(path: Path) -> str:
    name = f"com.streamer.client/{path.relative_to(PACKAGE).as_posix()}"
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    head = f"fileFormatVersion: 2\nguid: {digest}\n"
    if path.is_dir():
        importer = "folderAsset: yes\nDefaultImporter:\n  externalObjects: {}\n"
    elif path.suffix == ".cs":
        importer = _SCRIPT
    elif path.suffix == ".jslib":
        importer = _JSLIB
    else:
        importer = f"{_IMPORTERS[path.suffix]}:\n  externalObjects: {{}}\n"
    return head + importer + _USER_DATA


if __name__ == "__main__":
    for asset in assets():
        meta = meta_of(asset)
        if not meta.exists():
            meta.write_text(_text_for(asset))
