"""The folder that `nnUNet_extTrainer` names. nnU-Net imports all that lies in it: nothing may be added beside the shim."""
