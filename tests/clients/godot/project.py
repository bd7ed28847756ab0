"""The addon in a project, as the engine gets it."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ADDON", "ADDON_FOLDER", "PROJECT", "files_of"]

ROOT = Path(__file__).parents[3]
ADDON_FOLDER = ROOT / "clients" / "godot"
ADDON = ADDON_FOLDER / "addons" / "streamer"
PROJECT = Path(__file__).parent / "project"
COUNTING = ROOT / "clients" / "conformance" / "counting.json"
CLASS_CACHE = ".godot/global_script_class_cache.cfg"


def files_of(mode: str) -> dict[str, bytes]:
    """Return the project of the tests in a mode: the name of one of its scripts."""
    files = {path.name: path.read_bytes() for path in PROJECT.iterdir()}
    for path in ADDON.iterdir():
        files[f"addons/streamer/{path.name}"] = path.read_bytes()
    for path in (ADDON_FOLDER / "example").iterdir():
        files[f"example/{path.name}"] = path.read_bytes()
    readme = (ADDON_FOLDER / "README.md").read_text()
    blocks = re.findall(r"^```gdscript\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks):
        files[f"readme/{number}.gd"] = block.encode()
    files["counting.json"] = COUNTING.read_bytes()
    files["mode.txt"] = mode.encode()
    files[CLASS_CACHE] = _class_cache(files)
    return files


def _class_cache(files: dict[str, bytes]) -> bytes:
    """Return the names of classes, which an editor would write."""
    classes = []
    for name, content in files.items():
        text = content.decode()
        found = re.search(r"^class_name (\w+)$", text, re.MULTILINE)
        if name.endswith(".gd") and found:
            base = re.search(r"^extends (\w+)$", text, re.MULTILINE)
            assert base
            classes.append(
                f'{{"base": &"{base[1]}", "class": &"{found[1]}", "icon": "", '
                f'"is_abstract": false, "is_tool": false, "language": &"GDScript", '
                f'"path": "res://{name}"}}'
            )
    return f"list=[{', '.join(classes)}]\n".encode()
