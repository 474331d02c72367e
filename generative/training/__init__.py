"""Training of the autoencoder and of the diffusion models, with Lightning, from the files that preprocess-generative
writes.
"""
