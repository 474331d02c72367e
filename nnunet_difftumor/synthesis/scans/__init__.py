"""Tumors in CT scans on disk: files in, files out, and a manifest."""
