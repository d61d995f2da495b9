"""What fits, what is fastest here, and what ``auto`` means: decided before a training, and recorded in the run."""
