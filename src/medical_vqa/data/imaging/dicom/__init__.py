"""DICOM: the pixels of one frame, and the header fields on an allow-list."""
