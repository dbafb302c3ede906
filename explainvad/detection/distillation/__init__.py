"""Student-teacher scorers: a student learns what a teacher says of normal images, and of nothing else."""
