"""Notebooks of examples/notebooks: run, with outputs stored in them, and as pages of the site.

python scripts/site/notebooks.py FILE ...   # run them and store their outputs
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

DPI = 60  # of figures
FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"


def run(notebook: dict[str, Any]) -> None:
    """Run the cells of a notebook in their order, in one namespace, and replace their outputs: what
    they print, the value of an expression at their end, and the figures of matplotlib."""
    os.environ["MPLBACKEND"] = "Agg"
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(tree, f"cell {count}", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)  # type: ignore[attr-defined]  # noqa: S307
                if value is not None:
                    print(repr(value))
        text = printed.getvalue().splitlines(keepends=True)
        stream = {"name": "stdout", "output_type": "stream", "text": text}
        cell["execution_count"] = count
        cell["outputs"] = [*([stream] if text else []), *_figures()]


def _figures() -> list[dict[str, Any]]:
    """Return the open figures as outputs, and close them."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    from matplotlib import pyplot

    outputs = []
    for number in pyplot.get_fignums():
        png = io.BytesIO()
        pyplot.figure(number).savefig(png, format="png", dpi=DPI, bbox_inches="tight")
        data = {"image/png": base64.b64encode(png.getvalue()).decode()}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    pyplot.close("all")
    return outputs


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text())
    return notebook


def pages() -> dict[str, str]:
    """Return the page of each notebook, as Markdown with its stored outputs, by its path in the
    site."""
    return {f"notebooks/{path.stem}.md": _page(path) for path in sorted(FOLDER.glob("*.ipynb"))}


def _page(path: Path) -> str:
    parts = []
    for cell in read(path)["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        lines = (line for output in cell["outputs"] for line in output.get("text", ()))
        if shown := "".join(lines).rstrip():
            parts.append(f"```text\n{shown}\n```")
        for output in cell["outputs"]:
            if png := output.get("data", {}).get("image/png"):
                parts.append(f"![figure](data:image/png;base64,{png})")
    parts.append(f"The notebook is `examples/notebooks/{path.name}`.")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        notebook = read(path)
        run(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
