"""The volumes that the package contains, and the datasets that are rendered from them."""
