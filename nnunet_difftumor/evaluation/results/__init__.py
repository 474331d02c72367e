"""The result of an evaluation as text, CSV, Markdown and LaTeX."""
