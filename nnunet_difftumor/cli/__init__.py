"""The command `difftumor`: one file per verb, no logic of its own."""
