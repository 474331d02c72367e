"""What is looked at in every case of a converter, beside what reading it checks."""
