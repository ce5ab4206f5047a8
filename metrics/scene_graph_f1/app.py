"""A web page that scores a table of answers with the metric. `python app.py` starts it."""

from pathlib import Path
from typing import Any

import evaluate
import gradio as gr

HERE = Path(__file__).parent
METRIC = evaluate.load(str(HERE / "scene_graph_f1.py"))
COLUMNS = ["prediction", "reference", "modality"]


def score(rows: list[list[str]], rules: str) -> dict[str, Any]:
    """Score a table of (prediction, reference, modality); modalities count if every row has one."""
    filled = [[str(cell or "").strip() for cell in row] for row in rows]
    filled = [row for row in filled if any(row)]
    predictions, references, modalities = ([row[place] for row in filled] for place in range(3))
    try:
        return METRIC.compute(
            predictions=predictions,
            references=references,
            rules=rules,
            modalities=modalities if all(modalities) else None,
        )
    except ValueError as error:
        raise gr.Error(str(error)) from error


# Not evaluate's own launcher: it calls gr.inputs, which gradio has not had since version 4.
demo = gr.Interface(
    fn=score,
    inputs=[
        gr.Dataframe(headers=COLUMNS, type="array", datatype="str", row_count=1, label="answers"),
        gr.Radio(["paper", "strict"], value="paper", label="rules"),
    ],
    outputs=gr.JSON(label="scores"),
    title=METRIC.name,
    description=METRIC.description,
    article=(HERE / "README.md").read_text(encoding="utf-8").split("---\n", 2)[-1],
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
