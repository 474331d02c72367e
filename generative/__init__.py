"""3D autoencoder with a codebook (VQGAN) and latent diffusion of DiffTumor (Chen et al., CVPR 2024), in this package's
own code; weights of the published models can be imported. Runs without nnU-Net.
"""
