"""`bird data doctor`: which convention the boxes of a file are in, with the evidence, or that it cannot be told.

Nothing else here reads a file by what this package finds: a convention is stated by whoever knows it.
"""
