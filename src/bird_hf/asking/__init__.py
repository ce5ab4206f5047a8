"""Models of other families, behind the same interface as BiRD: through transformers, or behind an endpoint.

    from bird_hf.asking import ModelChoice, open_model

    model = open_model(ModelChoice("./Qwen3-VL-4B"))
    print(model.ask("scan.png", "Where is the left kidney?").boxes_px)

The boxes of their answers are fractions of the upright picture, whatever the model writes (`bird_hf.dialects`).
"""

from .choice import ModelChoice, open_model

__all__ = ["ModelChoice", "open_model"]
