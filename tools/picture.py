"""Draw real output of the command line as docs/demo.svg, the picture of the README.

python tools/picture.py
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMANDS = (
    ["search", "grouping DNA reads by organism", "-c", "papers", "-k", "2"],
    ["search", "pooling for decoder models", "-c", "papers", "-k", "1", "--where", "year >= 2025", "--explain"],
    ["eval", "-c", "papers", "--mode", "hybrid", "--against", "keyword"],
)


def main() -> None:
    width = 100
    console = Console(record=True, width=width, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115
    env = {**os.environ, "COLUMNS": str(width), "FORCE_COLOR": "1"}
    for arguments in COMMANDS:
        console.print(Text(f"$ isometry {shlex.join(arguments)}", style="bold"))
        command = [str(Path(sys.executable).with_name("isometry")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        console.print(Text.from_ansi(done.stdout))
    target = Path(__file__).resolve().parents[1] / "docs" / "demo.svg"
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="isometry"), flags=re.DOTALL)  # no remote fonts
    target.write_text(svg.replace("Fira Code", "ui-monospace"), encoding="utf-8")
    print(f"Wrote {target.name}")


if __name__ == "__main__":
    main()
