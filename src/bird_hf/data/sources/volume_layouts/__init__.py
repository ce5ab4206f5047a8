"""Layouts of public collections of volumes, read as they come: nnU-Net, the Decathlon, TotalSegmentator, suffixes.

A `labels.yaml` beside them is optional (volumes with a suffix need one); its fields count more than what the collection
says of itself.
"""
