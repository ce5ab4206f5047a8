"""`bird data export --to NAME`: a Med-GRIT folder -> the rows, pictures and registration file of a trainer.

`folder.export_for` goes through the rows; each trainer is a file with one class (`base.Trainer`), found by `registry`.
`coco.py` stands apart: COCO has the objects of images, and no questions.
"""
