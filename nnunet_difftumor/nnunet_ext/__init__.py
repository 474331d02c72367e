"""The folder that `nnUNet_extTrainer` names: nnU-Net imports all that lies in it, so the shim stays alone."""
