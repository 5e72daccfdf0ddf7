"""Answers as DICOM objects, to be stored next to the images that they are about."""
