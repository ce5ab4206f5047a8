"""Training of models that start from random weights, such as bird-nano; chosen by `new_model` in a recipe."""
