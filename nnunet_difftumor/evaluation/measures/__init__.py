"""What is measured in one scan: masks, surfaces, lesion by lesion, and candidates from probabilities."""
