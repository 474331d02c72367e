"""Figures over cases, each with a bootstrap interval over patients."""
