"""An MPI program: ranks prepare data together, then most train while the others evaluate."""
