"""Experiments: one plan of arms and seeds, run by nnU-Net's commands, resumed, and collected into figures."""
