"""`difftumor demo`: the whole way from CT scans to a measured gain, by the commands that a user would type."""
