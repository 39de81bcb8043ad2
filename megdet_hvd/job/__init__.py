"""The life of a job: who takes part, how they meet, are watched, and end. Knows no training."""
