"""One module per family of models. A new dialect is a new module here, see docs/dialects.md."""
