"""Training and fine-tuning of models that start from random weights, such as bird-nano; see `FromScratchConfig`."""
