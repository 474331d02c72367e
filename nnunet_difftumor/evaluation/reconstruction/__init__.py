"""Whether an autoencoder's weights fit a scan."""
