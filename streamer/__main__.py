"""Makes ``python -m streamer`` run the command."""

from __future__ import annotations

from streamer.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="streamer")
