"""Pages that say what a run made: one HTML file each, which opens anywhere and loads nothing."""

from nnunet_difftumor.pages.page import Page
from nnunet_difftumor.pages.slices import SliceStack

__all__ = ["Page", "SliceStack"]
