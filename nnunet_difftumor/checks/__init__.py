"""What can be wrong with data, banks and weights without anything failing: one module for each kind of finding."""
