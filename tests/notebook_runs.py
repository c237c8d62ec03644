"""Run a notebook's cells in one namespace, as Jupyter does, and write what they give.

`python tests/notebook_runs.py docs/python.ipynb` runs it in its own folder and writes the outputs.
No package of Jupyter is needed. What goes to standard error, as progress does, is left out.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

Cell = dict[str, Any]


def run(path: Path) -> list[Cell]:
    """All cells with the outputs of a run."""
    cells: list[Cell] = json.loads(path.read_text())["cells"]
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(path.parent):
        codes = [cell for cell in cells if cell["cell_type"] == "code"]
        for number, cell in enumerate(codes, start=1):
            cell |= {"execution_count": number, "outputs": outputs("".join(cell["source"]), names)}
            for output in cell["outputs"]:
                if output["output_type"] == "execute_result":
                    output["execution_count"] = number
    return cells


def outputs(source: str, names: dict[str, Any]) -> list[Cell]:
    """What a cell prints, and the value of its last line if that is an expression."""
    body, last = ast.parse(source).body, None
    if body and isinstance(body[-1], ast.Expr):
        last = ast.Expression(body.pop().value)  # type: ignore[attr-defined]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        value = eval(compile(last, "<cell>", "eval"), names) if last else None
    text, shown = printed.getvalue(), []
    if text:
        shown.append({"output_type": "stream", "name": "stdout", "text": lines(text)})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_png_"):
            data["image/png"] = base64.b64encode(smaller(value._repr_png_())).decode() + "\n"
        shown.append({"output_type": "execute_result", "data": data, "metadata": {}})
    return shown


def smaller(png: bytes) -> bytes:
    """A picture of few colours, for a small notebook."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def text_of(cell: Cell) -> str:
    """The text of a cell's outputs."""
    parts = [
        output.get("text", output.get("data", {}).get("text/plain")) for output in cell["outputs"]
    ]
    return "\n".join("".join(part) for part in parts)


def main() -> None:
    path = Path(sys.argv[1])
    notebook = json.loads(path.read_text())
    notebook["cells"] = run(path.resolve())
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    main()
