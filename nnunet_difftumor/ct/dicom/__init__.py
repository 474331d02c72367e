"""DICOM series as CT scans."""
