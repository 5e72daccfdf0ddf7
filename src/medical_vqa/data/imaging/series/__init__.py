"""Series: several DICOM files, or one file of many slices, as one `Volume`."""
