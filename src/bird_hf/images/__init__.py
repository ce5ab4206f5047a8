"""Opens images of every kind for asking: pictures, DICOM, NIfTI and NRRD; see `open.open_image`."""
